//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use palmtop::image::Filter;
use palmtop::tasks::{Label, Language, Line};
use palmtop::{KvFormat, Limits, QueryMask};
use palmtop_convert::{Adapter, QueryForm};
use palmtop_kernels::Isa;
use palmtop_kernels::layout::WeightFormat;

use crate::answer::TogetherArgs;
use crate::library::args::ModelsArgs;
use crate::pull::args::PullArgs;
use crate::retrieval::args::{EmbedArgs, FindArgs};
use crate::serve::args::ServeArgs;
use crate::watch::args::WatchArgs;

/// Ask PaliGemma about pictures, on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "palmtop",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "Start with: palmtop caption PICTURE\n\
                  For pictures of the real world get a model: palmtop pull paligemma2-3b-mix-224"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Print more to stderr: timings of every picture, and the library's log (twice: all of it); with --version, what
    /// this program is made of
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print only errors to stderr
    #[arg(long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Describe a picture in words
    Caption(CaptionArgs),
    /// Answer questions about a picture
    Ask(AskArgs),
    /// Read the text in a picture
    Ocr(OcrArgs),
    /// Find objects: boxes in pixels of the picture, with label and score
    Detect(DetectArgs),
    /// Find objects and their outlines: boxes and masks
    Segment(SegmentArgs),
    /// Pass any prompt to the model unchanged
    Run(RunArgs),
    /// Watch cameras, streams, folders and films: ask when something changes, and tell what happens
    Watch(WatchArgs),
    /// Answer over HTTP: OpenAI's, Ollama's and Moondream's interfaces, and a page with a camera
    Serve(ServeArgs),
    /// Make an index of pages: what they show, as vectors that questions are compared with
    Embed(EmbedArgs),
    /// Find the pages of an index that answer a question
    Find(FindArgs),
    /// Get a model from the Hugging Face hub: a checkpoint is converted while it comes
    Pull(PullArgs),
    /// List the models that are here and those that can be pulled; show or remove one
    Models(ModelsArgs),
    /// Make a model file from a checkpoint folder
    Convert(ConvertArgs),
    /// Show what is in a model file, or in an index of pages
    Inspect(InspectArgs),
    /// Compare every checksum of a model file, or of an index of pages
    Verify(VerifyArgs),
    /// Show how much memory a session will need, without creating it
    Plan(PlanArgs),
    /// Write every intermediate value of one picture and prompt to a safetensors file
    Trace(TraceArgs),
    /// Measure how well a model answers, or compare two models
    Eval(EvalArgs),
    /// Measure how fast a model answers on this machine, compared with the machine's limits
    Bench(BenchArgs),
    /// Show what this machine has, what palmtop uses of it, and how fast it is
    Doctor(DoctorArgs),
    /// Print the completion script of a shell
    #[command(
        after_help = "For bash:\n  palmtop completions bash > ~/.local/share/bash-completion/completions/palmtop"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder, for packages
    #[command(hide = true)]
    Man {
        /// A folder that is there
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop caption photo.jpg -m model.palm\n  \
    palmtop caption photos/ --style describe --lang de -m model.palm --json\n  \
    palmtop caption --together left.jpg right.jpg -m model.palm\n  \
    palmtop caption clip.mp4 --frames 16 -m model.palm")]
pub struct CaptionArgs {
    /// The kind of caption
    #[arg(long, value_enum, default_value_t)]
    pub style: Style,
    /// Language of the caption, such as en, de or zh-TW
    #[arg(long, default_value = "en", value_name = "CODE")]
    pub lang: Language,
    #[command(flatten)]
    pub common: AnswerArgs,
    #[command(flatten)]
    pub together: TogetherArgs,
}

/// The kinds of captions.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Style {
    /// As short as in web data (`pt` checkpoints)
    Cap,
    /// One sentence
    #[default]
    Caption,
    /// Longer
    Describe,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop ask photo.jpg -q \"what is on the table?\" -m model.palm\n  \
    palmtop ask photo.jpg -q \"what is it?\" -q \"what colour is it?\" -m model.palm\n  \
    palmtop ask photo.jpg -q \"is the door open?\" --choose \"yes;no;unknown\" -m model.palm\n  \
    palmtop ask clip.mp4 --frames 16 --stride 9 -q \"what is the man doing?\" -m model.palm\n\n\
    Several questions look at the picture once and are answered together.")]
pub struct AskArgs {
    /// The question; repeat the option to ask more
    #[arg(short, long = "question", required = true, value_name = "TEXT")]
    pub questions: Vec<Line>,
    /// Answer with one of these texts and nothing else; repeat the option, or separate texts by ';', to allow more
    #[arg(short, long, value_name = "TEXTS", value_parser = choices)]
    pub choose: Vec<Choices>,
    /// Language of question and answer, such as en, de or zh-TW
    #[arg(long, default_value = "en", value_name = "CODE")]
    pub lang: Language,
    #[command(flatten)]
    pub common: AnswerArgs,
    #[command(flatten)]
    pub together: TogetherArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  palmtop ocr receipt.png -m model.palm")]
pub struct OcrArgs {
    #[command(flatten)]
    pub common: AnswerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop detect photo.jpg -l cat -l \"traffic light\" -m model.palm\n  \
    palmtop detect photos/ -l \"cat ; dog\" --save boxes/ -m model.palm")]
pub struct DetectArgs {
    #[command(flatten)]
    pub labels: LabelArgs,
    #[command(flatten)]
    pub save: SaveArgs,
    #[command(flatten)]
    pub common: AnswerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  palmtop segment photo.jpg -l cat --save cat.png -m model.palm")]
pub struct SegmentArgs {
    #[command(flatten)]
    pub labels: LabelArgs,
    #[command(flatten)]
    pub save: SaveArgs,
    #[command(flatten)]
    pub masks: MaskArgs,
    #[command(flatten)]
    pub common: AnswerArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  palmtop run photo.jpg --prompt \"caption en\" --prompt \"detect cat\" -m model.palm\n\n\
    The prompt goes to the model as it is, followed by the newline that ends every prompt."
)]
pub struct RunArgs {
    /// The whole prompt; repeat the option to run more
    #[arg(short, long = "prompt", required = true, value_name = "TEXT")]
    pub prompts: Vec<String>,
    #[command(flatten)]
    pub save: SaveArgs,
    #[command(flatten)]
    pub masks: MaskArgs,
    #[command(flatten)]
    pub common: AnswerArgs,
    #[command(flatten)]
    pub together: TogetherArgs,
}

/// Arguments of all commands that answer.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// Pictures (JPEG, PNG, WebP, BMP, GIF, TIFF), folders of them, patterns such as "shots/*.png", or - for stdin;
    /// caption, ask and run also take videos
    #[arg(required = true, value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub sources: Vec<PathBuf>,
    /// Include pictures in subfolders
    #[arg(short, long)]
    pub recursive: bool,
    /// Use pictures that end too early as far as they go, instead of refusing them
    #[arg(long)]
    pub allow_truncated: bool,
    /// Print one JSON object per line: text, tokens, timings and typed results (docs/json.md)
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub decoding: DecodingArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// The model: a file, the name of one that was pulled, or demo for the small built-in one, which knows a world of
    /// emoji and words [default: the one of `palmtop models` that was used last, or else demo]
    #[arg(short, long, env = MODEL_VARIABLE, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: Option<PathBuf>,
    /// How the model comes into memory
    #[arg(long, value_enum, default_value_t)]
    pub load: Load,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// How a model file comes into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// Mapped, and read from the disk as it is used; the file must stay as it is meanwhile
    #[default]
    Map,
    /// Mapped, and read once before anything else
    Preload,
    /// Mapped, read, and kept in memory whatever else needs room (see ulimit -l)
    Lock,
    /// Read into memory of the program's own: the file may change or go away afterwards
    Read,
}

/// The environment variable that names the model.
const MODEL_VARIABLE: &str = "PALMTOP_MODEL";

/// How a session uses the machine.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct MachineArgs {
    /// Threads that compute [default: one per physical core that is not slow]
    #[arg(long, env = "PALMTOP_THREADS", value_name = "N", value_parser = count(1, 1024))]
    pub threads: Option<u64>,
    /// Instruction set of the kernels, of scalar, neon, neon-dotprod, neon-i8mm, avx2, avxvnni, avx512, amx; all give
    /// the same bits [default: what PALMTOP_ISA says, or the best of this CPU]
    #[arg(long, value_name = "NAME")]
    pub isa: Option<Isa>,
    /// The format of the KV cache
    #[arg(long, value_enum, default_value_t)]
    pub kv: Kv,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Kv {
    /// 32 bits for a model of f32 weights, else 16
    #[default]
    Auto,
    /// 32 bits
    F32,
    /// 16 bits
    F16,
    /// 8 bits and scales: half the memory of 16 bits; answers may differ slightly
    Int8,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding")]
pub struct DecodingArgs {
    /// Tokens of an answer at most [default: 256]
    #[arg(long, value_name = "N", value_parser = count(1, 8192))]
    pub max_new_tokens: Option<u64>,
    /// Maximum number of prompts answered together [default: all of a picture, at most 8]
    #[arg(long, value_name = "N", value_parser = count(1, 64))]
    pub batch: Option<u64>,
    /// Choose tokens by chance: near 0 the likeliest, 1 as the model says, above 1 wilder [default: 0, always the
    /// likeliest]
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub temperature: Option<f32>,
    /// Sample only from the K most likely tokens
    #[arg(long, value_name = "K", value_parser = count(1, 1 << 20), requires = "temperature")]
    pub top_k: Option<u64>,
    /// Sample only from the most likely tokens that together have probability P
    #[arg(long, value_name = "P", value_parser = probability, requires = "temperature")]
    pub top_p: Option<f32>,
    /// Seed of the sampler; the same seed gives the same answer
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "temperature")]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct LabelArgs {
    /// What to look for; repeat the option, or separate labels by ';', to look for more
    #[arg(short, long = "label", required = true, value_name = "NAME", value_parser = labels)]
    pub labels: Vec<Labels>,
}

/// Labels given in one argument.
#[derive(Clone, Debug)]
pub struct Labels(pub Vec<Label>);

/// Choices given in one argument.
#[derive(Clone, Debug)]
pub struct Choices(pub Vec<Line>);

#[derive(Debug, Default, Args)]
pub struct SaveArgs {
    /// Save the picture with boxes, labels and masks drawn: a file, or a folder (created if needed)
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub save: Option<PathBuf>,
}

#[derive(Debug, Default, Args)]
pub struct MaskArgs {
    /// Save every mask as a black and white PNG in this folder (created if needed)
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub save_masks: Option<PathBuf>,
}

/// How weights are stored.
#[derive(Debug, Default, Args)]
pub struct RecipeArgs {
    /// How weights are stored: f32, f16, int8 or int4 [default: int8]
    #[arg(short, long, value_name = "FORMAT")]
    pub weights: Option<WeightFormat>,
    /// Changes for parts of the model, such as text=int4,vision=f16, or for single matrices by their names in the file;
    /// or auto: int4 or int8 for every matrix by what it costs on the examples of --calibrate (auto,head=int8 leaves
    /// the head out)
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<String>,
    /// How the LM head is stored; in PaliGemma it is the embedding
    #[arg(long, value_name = "FORMAT")]
    pub head: Option<WeightFormat>,
    /// How the embedding is stored; in PaliGemma it is the LM head
    #[arg(long, value_name = "FORMAT")]
    pub embeddings: Option<WeightFormat>,
    /// How the image encoder is stored
    #[arg(long, value_name = "FORMAT")]
    pub vision: Option<WeightFormat>,
    /// How the decoder's layers are stored
    #[arg(long, value_name = "FORMAT")]
    pub text: Option<WeightFormat>,
}

/// How a checkpoint is read.
#[derive(Debug, Default, Args)]
pub struct ReadingArgs {
    /// The decoder of segmentation masks (vae-oid.npz), to include in the model
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub mask_codec: Option<PathBuf>,
    /// How pictures are resized: bicubic, bilinear (both as Pillow does it), or bilinear-aliased (as TensorFlow's
    /// resize without antialias) [default: what the checkpoint says, or bicubic]
    #[arg(long, value_name = "FILTER")]
    pub resize: Option<Filter>,
    /// Let answers of a PaliGemma 2 see all positions in every layer, as big_vision does; by default every second layer
    /// sees the last 4096, as in transformers. Shorter prompts and answers are the same
    #[arg(long)]
    pub no_windows: bool,
    /// How a model for retrieval is asked: question (`Question: …`, as transformers does), query (`Query: …`) or plain
    /// (the question alone), each with ten paddings behind it; docs/retrieval.md says which programs do which
    /// [default: what the checkpoint says, or question]
    #[arg(long, value_name = "FORM")]
    pub query_form: Option<QueryForm>,
    /// Which rows of a question see which: whole (each other) or causal (those before them) [default: whole, as
    /// transformers has it]
    #[arg(long, value_name = "MASK")]
    pub query_mask: Option<QueryMask>,
    /// Begin-of-sequence tokens between a page's picture and its prompt, of a model for retrieval [default: 1, as
    /// transformers has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub document_bos: Option<u8>,
    /// Convert though the checkpoint has tensors that PaliGemma does not use, such as those of another model beside it
    #[arg(long)]
    pub ignore_extra: bool,
    /// tokenizer.json or tokenizer.model [default: the one beside the weights]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub tokenizer: Option<PathBuf>,
    /// The licence of the weights, if they do not come from PaliGemma's, such as Apache-2.0 [default: Gemma's, with its
    /// notice]
    #[arg(long, value_name = "TEXT")]
    pub license: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop convert paligemma-3b-mix-224/ -o model.palm\n  \
    palmtop convert paligemma-3b-mix-224/ -o small.palm --weights int4 --mask-codec vae-oid.npz\n  \
    palmtop convert paligemma-3b-mix-224/ -o small.palm --weights int4 --calibrate examples.jsonl\n  \
    palmtop convert paligemma-3b-mix-224/ -o small.palm --recipe auto --target-bits 5.0 --calibrate examples.jsonl\n  \
    palmtop convert paligemma-3b-pt-224/ -o tuned.palm --adapter runs/receipts/checkpoint-500/\n  \
    palmtop convert paligemma2-3b-pt-224.npz -o model.palm --tokenizer paligemma_tokenizer.model\n\n\
    PaliGemma's weights come under the Gemma Terms of Use; so does a file converted from them.")]
pub struct ConvertArgs {
    /// A checkpoint: a folder in the form of the Hugging Face hub (config.json, safetensors files, tokenizer files), or
    /// a JAX checkpoint (FILE.npz, or a folder with one and tokenizer files)
    #[arg(value_name = "CHECKPOINT", value_hint = ValueHint::AnyPath)]
    pub checkpoint: PathBuf,
    /// The model file to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// An adapter to merge into the weights: a folder as PEFT saves it, LoRA in any kind. DIR=0.5 scales what it adds;
    /// several are merged one after the other. One in the checkpoint's folder is merged first
    #[arg(long = "adapter", value_name = "DIR[=SCALE]", value_parser = Adapter::from_argument,
          value_hint = ValueHint::DirPath)]
    pub adapters: Vec<Adapter>,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Average bits per weight, over all matrices, that --recipe auto may use [default: 5]
    #[arg(long, value_name = "BITS", value_parser = bits, requires = "recipe")]
    pub target_bits: Option<f64>,
    /// Run the model on examples, and round int4 so that its outputs change least: one JSON object a line, with image
    /// and prompt (and expected, which is run too; docs/eval.md)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub calibrate: Option<PathBuf>,
    /// Instruction set of the kernels that run the examples, of scalar, neon, neon-dotprod, neon-i8mm, avx2, avxvnni,
    /// avx512, amx; all give the same file [default: what PALMTOP_ISA says, or the best of this CPU]
    #[arg(long, value_name = "NAME", requires = "calibrate")]
    pub isa: Option<Isa>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// The model's name [default: the checkpoint's]
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// The checkpoint's revision [default: the one in the hub's cache, if it comes from there]
    #[arg(long, value_name = "TEXT")]
    pub revision: Option<String>,
    /// Number of threads [default: one per physical core that is not slow]
    #[arg(long, env = "PALMTOP_THREADS", value_name = "N", value_parser = count(1, 1024))]
    pub threads: Option<u64>,
    /// The form of the report on stdout
    #[arg(long, value_enum, default_value_t)]
    pub report: ReportForm,
}

/// How a conversion's report is printed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ReportForm {
    /// A table
    #[default]
    Text,
    /// One JSON object with every tensor; the table goes to stderr
    Json,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The model (a file, the name of one that was pulled, or demo), or an index of pages
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// List every tensor with offset and checksum, instead of combining the layers; of an index, every page
    #[arg(long)]
    pub all: bool,
    /// Print one JSON object with everything
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The model (a file, or the name of one that was pulled), or an index of pages
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  palmtop plan model.palm --batch 4 --max-new-tokens 64")]
pub struct PlanArgs {
    /// The model: a file, the name of one that was pulled, or demo
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Prompts answered together
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = count(1, 64))]
    pub batch: u64,
    /// Tokens of a prompt at most, image tokens not counted
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = count(2, 8192))]
    pub prompt_tokens: u64,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = count(1, 8192))]
    pub max_new_tokens: u64,
    /// Pictures of a prompt at most
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = count(1, 1024))]
    pub pictures: u64,
    /// Pixels of the longer side of a picture at most
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = count(1, 16384))]
    pub image_side: u64,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    palmtop trace photo.png --prompt \"caption en\" -m model.palm -o trace.safetensors --tokens 8\n\n\
    docs/trace.md lists the names.")]
pub struct TraceArgs {
    /// The picture; several go into one prompt, in this order
    #[arg(value_name = "PICTURE", required = true, num_args = 1..=16, value_hint = ValueHint::FilePath)]
    pub pictures: Vec<PathBuf>,
    /// The whole prompt, without the newline that ends it
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: String,
    /// The safetensors file to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Tokens to generate, greedily; the end of the answer does not stop it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = count(1, 8192))]
    pub tokens: u64,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop eval data.jsonl -m model.palm\n  \
    palmtop eval data.jsonl -m f32.palm -m int4.palm --json\n  \
    palmtop eval instances_val2017.json --images val2017/ -m model.palm --limit 100\n\n\
    DATA has one JSON object a line: {\"image\": \"a.png\", \"prompt\": \"detect cat\", \"expected\": \"<loc0012>… cat\"}, with \
    paths beside the file; or it is a COCO file of boxes. docs/eval.md tells all.")]
pub struct EvalArgs {
    /// Prompts and expected answers: lines of JSON, or a COCO file of annotations
    #[arg(value_name = "DATA", value_hint = ValueHint::FilePath)]
    pub data: PathBuf,
    /// The model; pass the option twice to compare the second model with the first
    #[arg(
        short, long = "model", env = MODEL_VARIABLE, value_name = "MODEL", value_hint = ValueHint::FilePath,
        action = ArgAction::Append
    )]
    pub models: Vec<PathBuf>,
    /// The folder of a COCO file's pictures [default: the file's own]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub images: Option<PathBuf>,
    /// Look for all labels of a COCO file in every picture, not only for those that the picture has
    #[arg(long)]
    pub all_labels: bool,
    /// Answer only the first N items
    #[arg(long, value_name = "N", value_parser = count(1, 1 << 20))]
    pub limit: Option<u64>,
    /// Write every item with its answers to this file, one JSON object per line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub answers: Option<PathBuf>,
    /// Tokens of an answer at most [default: 256]
    #[arg(long, value_name = "N", value_parser = count(1, 8192))]
    pub max_new_tokens: Option<u64>,
    /// Prompts of a picture answered together [default: 8]
    #[arg(long, value_name = "N", value_parser = count(1, 64))]
    pub batch: Option<u64>,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    palmtop bench -m model.palm\n  \
    palmtop bench --synthetic paligemma-3b-224 --weights int4 --json\n  \
    palmtop bench --cold -m model.palm\n\n\
    A synthetic model has the size of the real one and random weights: it shows what a machine will do before there \
    are weights. It is written to a temporary file (TMPDIR says where) and removed.")]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Instead of a model file: a model of random weights, such as paligemma-3b-224 or paligemma2-10b-448
    #[arg(long, value_name = "NAME")]
    pub synthetic: Option<String>,
    /// Weights of the synthetic model
    #[arg(long, value_name = "FORMAT", default_value = "int8", requires = "synthetic")]
    pub weights: WeightFormat,
    /// Keep the synthetic model in this new file
    #[arg(long, value_name = "FILE", requires = "synthetic", value_hint = ValueHint::FilePath)]
    pub keep: Option<PathBuf>,
    /// The picture [default: a built-in one]
    #[arg(long, value_name = "PICTURE", value_hint = ValueHint::FilePath)]
    pub image: Option<PathBuf>,
    /// The whole prompt
    #[arg(short, long, default_value = "caption en", value_name = "TEXT")]
    pub prompt: String,
    /// Tokens to generate in each round; the end of the answer does not stop it
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = count(2, 8192))]
    pub tokens: u64,
    /// Rounds to measure, after a warm-up round
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = count(1, 1000))]
    pub rounds: u64,
    /// Drop the file from memory, and measure the first answer then, beside the speed of the disk
    #[arg(long, conflicts_with_all = ["report", "tokens"])]
    pub cold: bool,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// Print one row for the table of docs/devices.md
    #[arg(long, conflicts_with = "json")]
    pub report: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  palmtop doctor")]
pub struct DoctorArgs {
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

impl ModelArgs {
    /// True if a flag names a model; one that the environment names is a default, which other arguments may overrule.
    pub fn is_named_by_flag(&self) -> bool {
        self.model
            .as_ref()
            .is_some_and(|path| std::env::var_os(MODEL_VARIABLE).is_none_or(|model| *path != model))
    }
}

impl MachineArgs {
    /// Session limits with what these arguments say, the rest as by default.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.threads = self.threads.map(|n| n as usize);
        limits.isa = self.isa;
        limits.kv = match self.kv {
            Kv::Auto => KvFormat::Auto,
            Kv::F32 => KvFormat::F32,
            Kv::F16 => KvFormat::F16,
            Kv::Int8 => KvFormat::Int8,
        };
        limits
    }
}

/// A number within bounds.
pub fn count(min: u64, max: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(min..=max)
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("give a number from 0 to 100".into()),
    }
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("give a number above 0, up to 1".into()),
    }
}

fn bits(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (1.0..=16.0).contains(&value) => Ok(value),
        _ => Err("give a number from 1 to 16".into()),
    }
}

pub fn labels(text: &str) -> Result<Labels, String> {
    let parsed = text.split(';').map(|label| label.parse::<Label>()).collect::<Result<Vec<_>, _>>();
    parsed.map(Labels).map_err(|error| error.to_string())
}

pub fn choices(text: &str) -> Result<Choices, String> {
    let parsed = text.split(';').map(|choice| choice.parse::<Line>()).collect::<Result<Vec<_>, _>>();
    parsed.map(Choices).map_err(|_| "one of the choices is empty, or has more than one line".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn labels_may_be_separated() {
        let names = |text| labels(text).map(|l| l.0.iter().map(Label::to_string).collect::<Vec<_>>());
        assert_eq!(names("cat ; traffic light").unwrap(), ["cat", "traffic light"]);
        assert!(names("cat ;; dog").is_err() && names("").is_err() && names("<loc0001>").is_err());
    }

    #[test]
    fn choices_may_be_separated() {
        let texts = |text| choices(text).map(|c| c.0.iter().map(Line::to_string).collect::<Vec<_>>());
        assert_eq!(texts("yes; no ;don't know").unwrap(), ["yes", "no", "don't know"]);
        assert!(texts("").is_err() && texts("yes;").is_err() && texts("a\nb").is_err());
    }

    #[test]
    fn sampling_needs_a_temperature() {
        let parse = |rest: &[&str]| Cli::try_parse_from([&["palmtop", "caption", "a.png"], rest].concat());
        assert!(parse(&["--temperature", "0.5", "--top-k", "3", "--top-p", "0.9", "--seed", "1"]).is_ok());
        assert!(parse(&["--top-k", "3"]).is_err() && parse(&["--seed", "3"]).is_err());
        assert!(parse(&["--temperature", "NaN"]).is_err() && parse(&["--temperature", "-1"]).is_err());
        assert!(parse(&["--temperature", "1", "--top-p", "0"]).is_err());
    }

    /// Words of a command as a shell would give them, as far as our examples go.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap();
        let mut words = vec![String::new()];
        let mut quoted = false;
        for character in line.chars() {
            match character {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut().unwrap().push(character),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn the_examples_of_help_and_readme_are_right() {
        let mut examples: Vec<String> = Vec::new();
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            examples
                .extend(help.lines().map(str::trim).filter(|l| l.starts_with("palmtop ")).map(String::from));
        }
        let from_help = examples.len();
        let readme = include_str!("../../README.md");
        for line in readme.lines() {
            let line = line.split("| `").nth(2).and_then(|cell| cell.split('`').next()).unwrap_or(line);
            let line = line.replace("cargo run --release -- ", "palmtop ");
            if line.starts_with("palmtop ") {
                examples.push(line);
            }
        }
        assert!(from_help >= 10 && examples.len() - from_help >= 12, "{examples:#?}");
        for example in examples {
            if let Err(error) = Cli::try_parse_from(words(&example)) {
                panic!("{example}: {error}");
            }
        }
    }
}
