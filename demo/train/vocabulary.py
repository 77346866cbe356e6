"""The tokenizer: a SentencePiece BPE with byte fallback and PaliGemma's own tokens, in the files of the hub.

    python demo/train/vocabulary.py OUT

Ids as in PaliGemma: <pad> 0, <eos> 1, <bos> 2, <unk> 3; then the pieces, <loc0000..1023>, <seg000..127> and <image>.
Capitals and digits are never merged, so that a word in a picture is spelled letter by letter.
"""

import io
import json
import sys
from functools import lru_cache
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

from world import dialogue, words

HERE = Path(__file__).parent
BASE = 640  # pieces before <loc0000>
LOCATIONS, SEGMENTS = 1024, 128
PAD, EOS, BOS, UNK = 0, 1, 2, 3
FIRST_LOCATION = BASE
FIRST_SEGMENT = FIRST_LOCATION + LOCATIONS
IMAGE_TOKEN = FIRST_SEGMENT + SEGMENTS
SIZE = (IMAGE_TOKEN + 1 + 63) // 64 * 64
FILES = HERE / "tokenizer"

PIECE = proto.ModelProto.SentencePiece


def train_pieces() -> bytes:
    """A SentencePiece model over the texts of the world."""
    texts = dialogue.vocabulary() * 20 + list(words.CHARACTERS) * 4
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="bpe", vocab_size=BASE, byte_fallback=True,
        pad_id=PAD, eos_id=EOS, bos_id=BOS, unk_id=UNK, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        unk_piece="<unk>", user_defined_symbols=["\n"], add_dummy_prefix=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", split_digits=True, character_coverage=1.0, num_threads=1,
        allow_whitespace_only_pieces=True, hard_vocab_limit=True, minloglevel=2,
    )
    return model.getvalue()


def write(folder: Path):
    """tokenizer.model, tokenizer.json and their companions, as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model = proto.ModelProto()
    model.ParseFromString(train_pieces())
    description = hugging_face(model)
    for text in [f"<loc{i:04d}>" for i in range(LOCATIONS)] + [f"<seg{i:03d}>" for i in range(SEGMENTS)]:
        index = len(model.pieces)
        description["model"]["vocab"][text] = index
        description["added_tokens"].append(added(text, index, special=False, normalized=True))
        model.pieces.add(piece=text, score=0, type=PIECE.USER_DEFINED)
        model.trainer_spec.user_defined_symbols.append(text)
    model.trainer_spec.vocab_size = len(model.pieces)
    description["added_tokens"].append(added("<image>", IMAGE_TOKEN, special=True, normalized=False))
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in description["added_tokens"]}
    settings = {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder,
        "additional_special_tokens": ["<image>"], "bos_token": "<bos>", "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>", "model_max_length": 1024, "pad_token": "<pad>", "processor_class": "PaliGemmaProcessor",
        "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>", "use_default_system_prompt": False,
    }
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    for name, content in (("tokenizer.json", description), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def added(content: str, index: int, special: bool, normalized: bool) -> dict:
    return {
        "id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": normalized, "special": special,
    }


def hugging_face(model: proto.ModelProto) -> dict:
    """The same tokenizer in the form of Gemma's tokenizer.json."""
    # transformers' own converter calls the byte piece of the tabulator "\t".
    vocab = {("\t" if p.piece == "<0x09>" else p.piece): i for i, p in enumerate(model.pieces)}
    merges = []
    for piece in model.pieces:
        if piece.type == PIECE.NORMAL:
            splits = [(piece.piece[:k], piece.piece[k:]) for k in range(1, len(piece.piece))]
            known = sorted((vocab[a], vocab[b], a, b) for a, b in splits if a in vocab and b in vocab)
            merges += [(piece.score, a, b) for _, _, a, b in known]
    merges.sort(key=lambda merge: -merge[0])
    tokens = []
    for index, piece in enumerate(model.pieces):
        if piece.type in (PIECE.CONTROL, PIECE.UNKNOWN, PIECE.USER_DEFINED):
            tokens.append(added(piece.piece, index, piece.type != PIECE.USER_DEFINED, False))
    begin = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": [f"{a} {b}" for _, a, b in merges],
        },
    }


@lru_cache(None)
def pieces() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(FILES / "tokenizer.model"))


@lru_cache(100_000)
def encode(text: str) -> tuple[int, ...]:
    """Ids of a text, without <bos>."""
    return tuple(pieces().encode(text))


def decode(ids: list[int]) -> str:
    return pieces().decode([i for i in ids if i not in (PAD, EOS, BOS) and i < IMAGE_TOKEN])


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FILES)
