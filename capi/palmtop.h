/* palmtop.h: ask PaliGemma about pictures, on the CPU, from C and from any language that calls C.
 *
 *     palmtop_model model;
 *     palmtop_session session;
 *     palmtop_features features;
 *     if (palmtop_model_open("model.palm", &model) != PALMTOP_OK ||
 *         palmtop_session_new(model, NULL, &session) != PALMTOP_OK ||
 *         palmtop_features_new(model, &features) != PALMTOP_OK) {
 *         fprintf(stderr, "%s\n", palmtop_last_error());
 *         exit(1);
 *     }
 *     for (each picture) {
 *         palmtop_pixels pixels;
 *         palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 640, 480, frame, frame_bytes);
 *         palmtop_encode_pixels(session, features, &pixels, NULL);
 *         const char *prompts[] = {"detect cat"};
 *         palmtop_result result;
 *         palmtop_answer(session, features, prompts, 1, NULL, &result);
 *         palmtop_object object = {.size = sizeof object};
 *         for (size_t i = 0; palmtop_result_get_object(result, 0, i, &object) == PALMTOP_OK; i++)
 *             printf("%s at %.0f, %.0f\n", object.label, object.x_min, object.y_min);
 *         palmtop_result_free(result);
 *     }
 *     palmtop_features_free(features);
 *     palmtop_session_free(session);
 *     palmtop_model_free(model);
 *
 * For complete programs, see examples/c.
 *
 * To ask the same questions of a camera's frames again and again, and only when something in them changes, use a watch:
 * see "Watching" below.
 *
 * HANDLES are numbers in a struct, passed by value. You own every handle that a call creates for you, and must free it.
 * If a handle is zero, was freed or was never issued, every function that takes it returns PALMTOP_INVALID_HANDLE and
 * changes nothing. No handle makes a function crash. Handles are valid only in the process that created them. You may
 * free objects in any order: a session keeps its model alive, and a result keeps the data that it refers to.
 *
 * THREADS. You may call every function from any thread. Any number of threads may use a model, a grammar or a result at
 * the same time. A session or a watch runs one call at a time, and so do features and a prefix while they are written:
 * a second call returns PALMTOP_BUSY at once and has no effect. To process several pictures at the same time, create
 * one session per thread; they share one model. palmtop_session_cancel and palmtop_watch_cancel may be called from any
 * thread at any time. After fork(), the child process must not use objects that its parent created.
 *
 * MEMORY. palmtop_session_new takes the memory that palmtop_model_plan states. It writes to every page of it except the
 * threads' stacks, so that the system provides it then, unless you set lazy_memory. After that, palmtop_encode_pixels
 * and palmtop_compute_prefix allocate nothing, nor do palmtop_answer and palmtop_answer_requests up to the last token.
 * These then allocate their result, if you ask for one. palmtop_encode_file allocates the decoded picture. What a watch
 * allocates is described with it. If a large allocation (megabytes) fails, the call returns PALMTOP_OUT_OF_MEMORY. If
 * the system cannot allocate even a few hundred bytes, the process ends.
 *
 * TEXT is UTF-8. Strings that you pass in end with a zero byte. So do strings that you get back, except the pieces that
 * palmtop_piece_callback receives.
 *
 * UNITS. Sizes are in bytes, picture sides in pixels, times in nanoseconds.
 *
 * FLOATING POINT. Calls compute in the default mode (round to nearest, subnormal numbers kept, no traps), whatever mode
 * the caller has set, and restore the caller's mode when they return: the mode changes no bit of an answer. Callbacks
 * run in the default mode.
 *
 * CALLBACKS must return normally: no exception and no longjmp may leave them. They may call any function of this
 * library. The session of the call that runs them is busy, and its features can only be read.
 *
 * STRUCTS whose first field is `size` may grow at the end in later versions. Initialize option structs with their init
 * function. In structs that the library fills, set `size` to the sizeof of the struct. Programs that do so keep working
 * with newer libraries.
 *
 * POINTERS. If a required pointer is null, or a size is impossible, the call returns PALMTOP_INVALID_ARGUMENT. The
 * library cannot check anything else about a pointer: the caller must make sure that it points to what this header
 * describes.
 */
#ifndef PALMTOP_H
#define PALMTOP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ----------------------------------------------------------------------------------------------------- */

/* Incremented by every change after which programs must be recompiled. */
#define PALMTOP_ABI_VERSION 1u

/* The ABI version of the linked library. It must equal PALMTOP_ABI_VERSION of the header. Never fails. */
uint32_t palmtop_abi_version(void);

/* The release, such as "0.1.0". Never fails. The string is static: do not free it. */
const char *palmtop_version(void);

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

/* Nearly every function returns a status: PALMTOP_OK, or the kind of error. Unless its description says otherwise, a
 * failed call changes nothing, except that it sets the handle that it would have returned to zero. */
typedef int32_t palmtop_status;
enum {
    PALMTOP_OK = 0,
    PALMTOP_INVALID_ARGUMENT = 1, /* null, out of range, or arguments that do not fit together */
    PALMTOP_INVALID_HANDLE = 2,   /* zero, freed, or never issued */
    PALMTOP_BUSY = 3,             /* another call is using the object */
    PALMTOP_TOO_SMALL = 4,        /* your buffer is too small; the required size has been written */
    PALMTOP_BAD_MODEL = 5,        /* the model file is damaged, incomplete, or of an unsupported version */
    PALMTOP_BAD_IMAGE = 6,        /* the picture is damaged, of an unknown format, or too large */
    PALMTOP_IO = 7,               /* the system could not read the file */
    PALMTOP_OUT_OF_MEMORY = 8,    /* memory could not be allocated: ask for a smaller session */
    PALMTOP_NO_THREADS = 9,       /* the system could not start the threads */
    PALMTOP_CANCELLED = 10,       /* palmtop_session_cancel or palmtop_watch_cancel was called */
    PALMTOP_DEADLINE = 11,        /* the deadline passed before the call finished */
    PALMTOP_NOT_FOUND = 12,       /* there is no such answer, object or mask, or no record waits */
    PALMTOP_INTERNAL = 13         /* a bug in the library: free the object, create a new one, and please report it */
};

/* A sentence that says what went wrong in the last call that failed on this thread, and what to do about it. Empty
 * if no call has failed yet. Valid until another call fails on this thread, or the thread ends. Never null. */
const char *palmtop_last_error(void);

/* A short name for a status, such as "busy". Never null. The string is static: do not free it. */
const char *palmtop_status_name(palmtop_status status);

/* ---- Log --------------------------------------------------------------------------------------------------------- */

enum {
    PALMTOP_LOG_OFF = 0,
    PALMTOP_LOG_ERROR = 1,
    PALMTOP_LOG_WARNING = 2,
    PALMTOP_LOG_INFO = 3,
    PALMTOP_LOG_DEBUG = 4
};

/* Receives log messages, that is, all that the library reports other than errors. It may be called on any thread,
 * and on several at the same time. `message` is valid until the callback returns. */
typedef void (*palmtop_log_callback)(void *user, int32_t level, const char *message);

/* Sets the log callback of the whole process: it receives messages up to `level`. It replaces the previous callback,
 * which is not called any more once this function returns. Null turns logging off, which is the default. Returns
 * PALMTOP_BUSY if it is called from the log callback itself. */
palmtop_status palmtop_set_log(int32_t level, palmtop_log_callback callback, void *user);

/* ---- Models ------------------------------------------------------------------------------------------------------ */

/* A model: weights, architecture and tokenizer. */
typedef struct palmtop_model { uint64_t id; } palmtop_model;

/* Maps the .palm file at `path`: opening is quick, its pages are read on first use, and processes share them. The file
 * must stay as it is until the model is freed. If anybody shortens it, the system ends your process with SIGBUS; if
 * anybody writes into it, answers are wrong. Replace a model by renaming a finished file into its place, and never
 * write into one; or use palmtop_model_read. */
palmtop_status palmtop_model_open(const char *path, palmtop_model *model);

/* Reads the .palm file at `path` into memory of its own. What happens to the file afterwards does not matter. The
 * memory, as much as the file has bytes, belongs to this process alone, and the system cannot drop it when it needs
 * room. */
palmtop_status palmtop_model_read(const char *path, palmtop_model *model);

/* Opens a model that is part of the open file `fd`, such as an uncompressed asset of an Android package. The model
 * starts at byte `offset` and has `length` bytes; if `length` is 0, it reaches to the end of the file. You keep `fd`
 * and may close it afterwards. The call leaves its file position as it was, but nobody else may move it during the
 * call. If `offset` is not a multiple of 64, the call reads the whole model into memory and logs a warning. Not
 * available on Windows. A model that is not read into memory is mapped, and the rule of palmtop_model_open holds. */
palmtop_status palmtop_model_open_fd(int32_t fd, uint64_t offset, uint64_t length, palmtop_model *model);

/* Tells you that the memory of a model is no longer in use. Called once, on any thread. */
typedef void (*palmtop_release_callback)(void *user);

/* Opens a model that is in memory at `data`, an address that must be a multiple of 64. The caller must keep this memory
 * unchanged until the library calls `release`; if `release` is null, for the rest of the process. The library calls
 * `release` when the model and everything created from it are freed. If this call fails, `release` is not called. */
palmtop_status palmtop_model_open_memory(
    const void *data, size_t bytes, palmtop_release_callback release, void *user, palmtop_model *model);

/* Frees the handle. The model's memory is released at the latest when all objects created from it are freed too. */
palmtop_status palmtop_model_free(palmtop_model model);

typedef struct palmtop_model_info {
    size_t size;               /* sizeof(palmtop_model_info), set by you */
    uint64_t file_bytes;
    uint32_t image_side;       /* pictures are resized to a square with this side */
    uint32_t image_tokens;     /* tokens of a prompt that each picture takes, in addition to its text */
    uint32_t vocabulary;       /* number of tokens */
    uint32_t generation;       /* PaliGemma 1 or 2 */
    uint32_t vision_layers;
    uint32_t text_layers;
    uint32_t has_mask_decoder; /* 1 if palmtop_result_get_mask can work, else 0 */
    uint32_t reserved;
} palmtop_model_info;

palmtop_status palmtop_model_get_info(palmtop_model model, palmtop_model_info *info);

/* Reads the whole file and compares its checksums. Returns PALMTOP_BAD_MODEL if any part is damaged. Takes as long
 * as reading the file from disk. */
palmtop_status palmtop_model_verify(palmtop_model model);

/* Reads all of the model once, so that the first answer does not wait for the disk. The system may drop it again. */
palmtop_status palmtop_model_preload(palmtop_model model);

/* Reads all of the model, and keeps it in memory until it is freed. Returns PALMTOP_OUT_OF_MEMORY if the system does
 * not allow that much, which is usual without a privilege or a higher limit (ulimit -l), and always on Windows. The
 * model can be used all the same. */
palmtop_status palmtop_model_lock(palmtop_model model);

/* ---- Sessions ---------------------------------------------------------------------------------------------------- */

/* The memory and the threads that compute answers. */
typedef struct palmtop_session { uint64_t id; } palmtop_session;

/* The format of the KV cache: chosen to fit the model, or 32, 16 or 8 bits per value. With 8 bits, answers may differ
 * slightly. */
enum { PALMTOP_KV_AUTO = 0, PALMTOP_KV_F32 = 1, PALMTOP_KV_F16 = 2, PALMTOP_KV_INT8 = 3 };

/* Instruction sets of the kernels. All give the same bits. If the CPU does not have the requested one,
 * palmtop_session_new returns PALMTOP_INVALID_ARGUMENT. The default is the best set of the CPU, unless the environment
 * variable PALMTOP_ISA names another; it is read once. */
enum {
    PALMTOP_ISA_DEFAULT = 0,
    PALMTOP_ISA_SCALAR = 1,       /* plain code for every CPU */
    PALMTOP_ISA_NEON = 2,         /* Armv8.0 */
    PALMTOP_ISA_NEON_DOTPROD = 3, /* with int8 dot products */
    PALMTOP_ISA_NEON_I8MM = 4,    /* also with int8 matrix products */
    PALMTOP_ISA_AVX2 = 5,
    PALMTOP_ISA_AVXVNNI = 6,
    PALMTOP_ISA_AVX512 = 7,       /* with VNNI */
    PALMTOP_ISA_AMX = 8
};

/* How pictures are resized to the encoder's square: as the model's file says, or in another way. Fine-tunes on videos
 * and pairs of pictures were trained with the last one. */
enum {
    PALMTOP_FILTER_OF_MODEL = 0,
    PALMTOP_FILTER_BICUBIC = 1,         /* antialiased, as in Pillow */
    PALMTOP_FILTER_BILINEAR = 2,        /* antialiased, as in Pillow */
    PALMTOP_FILTER_BILINEAR_ALIASED = 3 /* between the four nearest pixels, as in tf.image.resize */
};

#define PALMTOP_NICE_AS_IT_IS 127

/* Called first on each thread that a session starts; `index` counts from 1. Use it to set the thread's priority or
 * quality of service, or to attach it to a virtual machine. All these calls have returned when palmtop_session_new
 * returns. */
typedef void (*palmtop_thread_callback)(void *user, uint32_t index);

/* Limits and threads of a session. They determine its memory. The comments end with the default. */
typedef struct palmtop_session_options {
    size_t size;
    uint32_t batch;         /* maximum number of prompts answered together; 1 */
    uint32_t prompt_tokens; /* maximum tokens of a prompt, not counting those of its pictures; 256 */
    uint32_t new_tokens;    /* maximum tokens of an answer; 0: a session without answers; 256 */
    uint32_t image_side;    /* maximum pixels of the longer side of a picture; 16384 */
    int32_t kv;             /* PALMTOP_KV_AUTO */
    uint32_t threads;       /* threads that compute, including the calling one; 0: one per physical core,
                             * slow ones of big.LITTLE left out */
    int32_t nice;           /* niceness of the started threads, -20 to 19; PALMTOP_NICE_AS_IT_IS. Linux and Android */
    uint32_t core_count;    /* number of entries in `cores`; 0: any core */
    const uint32_t *cores;  /* cores for the started threads, as the system numbers them. Linux and Android */
    palmtop_thread_callback on_thread_start; /* null */
    void *thread_user;
    int32_t isa;            /* PALMTOP_ISA_DEFAULT */
    uint32_t lazy_memory;   /* 1: do not write to the session's memory when it is created; the system then provides each
                             * page when it is first used; 0 */
    uint32_t pictures;      /* maximum number of pictures of a prompt; 1 */
    uint32_t draft_tokens;  /* maximum tokens of a draft that are checked in one step; 0: drafts are of no use */
    int32_t filter;         /* PALMTOP_FILTER_OF_MODEL */
    uint32_t reserved;
} palmtop_session_options;

/* Sets the defaults given in the comments above. `size` is sizeof(palmtop_session_options). */
palmtop_status palmtop_session_options_init(palmtop_session_options *options, size_t size);

/* The memory that a session takes, and that one features object takes. */
typedef struct palmtop_plan {
    size_t size;               /* sizeof(palmtop_plan), set by you */
    uint64_t session_bytes;    /* all that a session takes: the sum of kv_bytes to features_bytes */
    uint64_t weights_bytes;    /* mapped from the file and shared; not part of the session */
    uint64_t kv_bytes;
    uint64_t activation_bytes;
    uint64_t thread_bytes;     /* scratch memory of all threads, and 512 KiB of stack for each that is started */
    uint64_t image_bytes;
    uint64_t text_bytes;
    uint64_t features_bytes;
    uint32_t threads;
    uint32_t reserved;
} palmtop_plan;

/* Computes the memory that a session with these options (null: the defaults) would take. Creates no session. */
palmtop_status palmtop_model_plan(palmtop_model model, const palmtop_session_options *options, palmtop_plan *plan);

/* Creates a session: allocates its memory and starts its threads. The thread that later calls the session computes
 * too; if you want a niceness or cores for it, set them yourself. If the system refuses a niceness or a core, a
 * message goes to the log. */
palmtop_status palmtop_session_new(
    palmtop_model model, const palmtop_session_options *options, palmtop_session *session);

/* Frees a session and ends its threads. Returns PALMTOP_BUSY while a call is using it: cancel that call and wait
 * until it returns. */
palmtop_status palmtop_session_free(palmtop_session session);

/* Stops the call that is using the session, within about the time of one layer: that call returns PALMTOP_CANCELLED.
 * So does every later call until palmtop_session_reset_cancel, so a request that comes just before a call is not
 * lost. You may call this from any thread and any callback at any time, but not from a signal handler. */
palmtop_status palmtop_session_cancel(palmtop_session session);

/* Clears the request to cancel, so that later calls run again. */
palmtop_status palmtop_session_reset_cancel(palmtop_session session);

/* The time that the last calls took. */
typedef struct palmtop_timings {
    size_t size;           /* sizeof(palmtop_timings), set by you */
    uint64_t encode_ns;    /* the last picture: resizing and image encoder */
    uint64_t prefill_ns;   /* prefill of the last prompts, up to their first tokens */
    uint64_t decode_ns;    /* all tokens after the first */
    uint64_t decode_steps; /* each gives every answer that has not ended a token, or as many as its draft has right */
    uint64_t prefix_ns;    /* the last prefix */
} palmtop_timings;

palmtop_status palmtop_session_get_timings(palmtop_session session, palmtop_timings *timings);

/* ---- Time -------------------------------------------------------------------------------------------------------- */

/* The time of a monotonic clock; never 0. Deadlines are times of this clock:
 *     options.deadline_ns = palmtop_clock_ns() + 200 * 1000000ull;
 * You can pass the same deadline to palmtop_encode_pixels and palmtop_answer. */
uint64_t palmtop_clock_ns(void);

/* ---- Pictures ---------------------------------------------------------------------------------------------------- */

/* The output of the image encoder for one picture. Encode a picture once, then ask about it as often as you like. */
typedef struct palmtop_features { uint64_t id; } palmtop_features;

/* Allocates the features of one picture: features_bytes of palmtop_plan. All sessions of this model can use them. */
palmtop_status palmtop_features_new(palmtop_model model, palmtop_features *features);

/* Frees features. Returns PALMTOP_BUSY while a call is using them. */
palmtop_status palmtop_features_free(palmtop_features features);

/* The width and height in pixels of the upright picture; boxes and masks use its coordinates. Both are 0 until a
 * picture is encoded. */
palmtop_status palmtop_features_get_picture(palmtop_features features, uint32_t *width, uint32_t *height);

/* Pixel formats. The first five have one plane. */
enum {
    PALMTOP_RGB = 1,
    PALMTOP_BGR = 2,
    PALMTOP_RGBA = 3, /* alpha is ignored */
    PALMTOP_BGRA = 4, /* alpha is ignored */
    PALMTOP_GREY = 5,
    PALMTOP_NV12 = 6, /* a luma plane; a plane of alternating U and V, one pair per 2 x 2 pixels */
    PALMTOP_NV21 = 7, /* a luma plane; a plane of alternating V and U */
    PALMTOP_YUV420 = 8 /* planes of luma, U and V: I420, or with steps Android's YUV_420_888 */
};

/* The meaning of luma and chroma: the matrix of ITU-R BT.601 or BT.709, and the range. Android's camera uses the
 * first unless it says otherwise, JPEG uses the second, and iOS uses the last two for 420v and 420f in high
 * definition. */
enum {
    PALMTOP_BT601_LIMITED = 0, /* luma 16 to 235, chroma 16 to 240 */
    PALMTOP_BT601_FULL = 1,    /* 0 to 255 */
    PALMTOP_BT709_LIMITED = 2,
    PALMTOP_BT709_FULL = 3
};

typedef struct palmtop_plane {
    const uint8_t *data; /* the first sample */
    size_t bytes;        /* readable bytes at data; the last row need not be padded to the stride */
    size_t stride;       /* bytes from the start of one row to the start of the next */
    size_t step;         /* bytes from one sample to the next in a row, for PALMTOP_YUV420 only; 0 is 1 */
} palmtop_plane;

/* A picture in memory. The library reads it in place; the caller must not change it during the call. */
typedef struct palmtop_pixels {
    size_t size;
    int32_t format;    /* PALMTOP_RGB... */
    uint32_t width;    /* as stored in memory, before rotation */
    uint32_t height;
    uint32_t rotation; /* clockwise degrees that turn the picture upright, as in CameraX: 0, 90, 180 or 270; 0 */
    int32_t color;     /* PALMTOP_BT601_LIMITED */
    uint32_t reserved;
    palmtop_plane planes[3];
} palmtop_pixels;

/* Describes a contiguous picture at `data`: row after row and plane after plane, without gaps. It does not read
 * `data`. For any other layout, call this function and then set the planes yourself; you may then pass null for
 * `data` and 0 for `width` or `height`, and set those afterwards too. */
palmtop_status palmtop_pixels_init(
    palmtop_pixels *pixels, size_t size, int32_t format, uint32_t width, uint32_t height, const void *data, size_t bytes);

typedef struct palmtop_encode_options {
    size_t size;
    uint64_t deadline_ns; /* a time of palmtop_clock_ns; 0: no deadline */
} palmtop_encode_options;

palmtop_status palmtop_encode_options_init(palmtop_encode_options *options, size_t size);

/* Encodes a picture in memory and writes the result to `features`. If the call fails, `features` may be left empty.
 * Allocates nothing. */
palmtop_status palmtop_encode_pixels(palmtop_session session, palmtop_features features, const palmtop_pixels *pixels,
                                     const palmtop_encode_options *options);

/* Encodes the picture in a JPEG, PNG, WebP, BMP, GIF or TIFF file whose `bytes` bytes are in memory at `data`. Rotates
 * it as its Exif or XMP says. A file that ends too early is PALMTOP_BAD_IMAGE, like any other that is broken. Allocates
 * the decoded picture during the call, at most 512 MiB. */
palmtop_status palmtop_encode_file(palmtop_session session, palmtop_features features, const void *data, size_t bytes,
                                   const palmtop_encode_options *options);

/* ---- Questions --------------------------------------------------------------------------------------------------- */

/* A restriction of what an answer may be. */
typedef struct palmtop_grammar { uint64_t id; } palmtop_grammar;

/* Creates a grammar that allows exactly `count` answers: the texts in `choices` and nothing else. */
palmtop_status palmtop_grammar_choices(
    palmtop_model model, const char *const *choices, size_t count, palmtop_grammar *grammar);

palmtop_status palmtop_grammar_free(palmtop_grammar grammar);

/* A part of an answer, delivered as it is generated. */
typedef struct palmtop_piece {
    size_t size;
    const char *text; /* `length` bytes of whole characters, NOT ended by a zero; often one word, sometimes empty */
    size_t length;
    uint32_t prompt;  /* index of the prompt or request that it answers, from 0 */
    int32_t token;    /* or -1 in the last piece of an answer, which holds the remaining text */
} palmtop_piece;

/* Receives the pieces on the thread that asked. `piece` is valid until the callback returns. Return
 * 0 to continue; any other value ends the answer to this prompt. */
typedef int32_t (*palmtop_piece_callback)(void *user, const palmtop_piece *piece);

typedef struct palmtop_answer_options {
    size_t size;
    uint64_t deadline_ns;    /* a time of palmtop_clock_ns; 0: no deadline */
    uint64_t seed;           /* of the sampler; the same seed gives the same answer; 0 */
    palmtop_grammar grammar; /* id 0: no grammar */
    uint32_t max_new_tokens; /* at most the session's new_tokens; 0: the session's new_tokens */
    uint32_t top_k;          /* sample only from this many most likely tokens; 0: all */
    float temperature;       /* 0: always the most likely token (arg-max) */
    float top_p;             /* sample only from the most likely tokens that together have this probability; 0: all */
    uint32_t ignore_end;     /* 1: generate max_new_tokens even if the model ends the answer earlier; 0 */
    uint32_t reserved;
    palmtop_piece_callback on_piece; /* null */
    void *piece_user;
} palmtop_answer_options;

palmtop_status palmtop_answer_options_init(palmtop_answer_options *options, size_t size);

/* The answers of one call of palmtop_answer or palmtop_answer_requests. */
typedef struct palmtop_result { uint64_t id; } palmtop_result;

/* Answers `count` prompts (1 to the session's batch, at most 256) about the picture in `features` together. Each
 * answer is the same as if its prompt were answered alone. If you need only the pieces, pass null for `result`: the
 * call then allocates nothing.
 *
 * If the call returns PALMTOP_CANCELLED or PALMTOP_DEADLINE, `result` holds what had been answered so far, or is
 * zero if there was nothing. So free `result` whatever the call returns. */
palmtop_status palmtop_answer(palmtop_session session, palmtop_features features, const char *const *prompts, size_t count,
                              const palmtop_answer_options *options, palmtop_result *result);

/* A prompt, and the pictures that it is about: frames of a video, or a pair. The decoder sees the pictures in this
 * order, one behind the other, and then the prompt; in another order they are another question. Their features stay as
 * they are. So for the next question about a video encode only the frames that are new, and hand in all of them again:
 * see examples/c/film.c. */
typedef struct palmtop_request {
    size_t size;                      /* sizeof(palmtop_request), set by you */
    const char *prompt;
    const palmtop_features *pictures; /* features of this session's model, each as often as you like */
    size_t picture_count;             /* 1 to the session's `pictures` */
    const uint32_t *draft;            /* tokens that the answer may turn out to be, such as those of the last answer
                                       * about the same scene. The answer is the one without a draft, bit for bit; it
                                       * comes sooner the more of it the draft has right. Null: none */
    size_t draft_count;               /* any number; tokens that the model does not have end the draft */
} palmtop_request;

/* Answers `count` requests (1 to the session's batch, at most 256, with at most 512 pictures in all) together, like
 * palmtop_answer. Each answer is the same as if its request were answered alone. Boxes and masks are in pixels of the
 * request's first picture. */
palmtop_status palmtop_answer_requests(palmtop_session session, const palmtop_request *requests, size_t count,
                                       const palmtop_answer_options *options, palmtop_result *result);

/* Tasks with a fixed prompt wording. You may also use any other text as a prompt. */
enum {
    PALMTOP_CAP = 1,      /* "cap en": no text; models without fine-tuning */
    PALMTOP_CAPTION = 2,  /* "caption en": no text */
    PALMTOP_DESCRIBE = 3, /* "describe en": no text */
    PALMTOP_ANSWER = 4,   /* "answer en TEXT" */
    PALMTOP_QUESTION = 5, /* "question en TEXT": asks for a question that TEXT answers */
    PALMTOP_OCR = 6,      /* "ocr": no text, no language */
    PALMTOP_DETECT = 7,   /* "detect TEXT ; TEXT": boxes */
    PALMTOP_SEGMENT = 8   /* "segment TEXT ; TEXT": boxes and masks */
};

/* Writes the prompt of a task with the `count` texts in `items` into `buffer`, which has `bytes` bytes, and ends it
 * with a zero. Writes the prompt's length without the zero to `length`, even if the buffer is too small
 * (PALMTOP_TOO_SMALL) or null (PALMTOP_OK). `language` is a code such as "en"; null means "en". The call refuses
 * texts that cannot be part of such a prompt. */
palmtop_status palmtop_prompt(int32_t task, const char *language, const char *const *items, size_t count, char *buffer,
                              size_t bytes, size_t *length);

/* ---- Results ----------------------------------------------------------------------------------------------------- */

palmtop_status palmtop_result_free(palmtop_result result);

/* The number of answers in the result; 0 if the handle is invalid. */
size_t palmtop_result_count(palmtop_result result);

/* Why an answer ended. */
enum {
    PALMTOP_STOP_END = 0,       /* the model or the grammar ended it */
    PALMTOP_STOP_LIMIT = 1,     /* max_new_tokens was reached */
    PALMTOP_STOP_CANCELLED = 2, /* palmtop_session_cancel was called */
    PALMTOP_STOP_DEADLINE = 3,  /* the deadline passed */
    PALMTOP_STOP_CALLBACK = 4   /* on_piece returned a value other than 0 */
};

/* One answer. Its pointers are valid until the result is freed. */
typedef struct palmtop_answer_info {
    size_t size;                /* sizeof(palmtop_answer_info), set by you */
    const char *text;           /* the whole text, including <loc....> and <seg...>; ends with a zero */
    size_t text_length;         /* without the zero */
    const uint32_t *tokens;
    const float *probabilities; /* the probability that the model gave to each token */
    size_t token_count;
    size_t object_count;        /* number of objects that the text locates */
    uint32_t prompt_tokens;     /* including those of the pictures */
    int32_t stop;               /* PALMTOP_STOP_... */
    float likelihood;           /* the product of the probabilities, including that of the end */
    uint32_t accepted_draft_tokens; /* tokens that the draft had right, and that took no step of their own */
} palmtop_answer_info;

/* Gets the answer to prompt or request number `answer`, counted from 0. Returns PALMTOP_NOT_FOUND if there is none. */
palmtop_status palmtop_result_get_answer(palmtop_result result, size_t answer, palmtop_answer_info *info);

typedef struct palmtop_object {
    size_t size;           /* sizeof(palmtop_object), set by you */
    const char *label;     /* as the model wrote it, may be empty; ends with a zero; valid until the result is freed */
    size_t label_length;   /* without the zero */
    float score;           /* likelihood of the label, 0 to 1; -1 if there is no label */
    float x_min;           /* edges of the box in pixels of the upright picture, not rounded */
    float y_min;
    float x_max;
    float y_max;
    uint16_t locations[4]; /* the model's location tokens: y1, x1, y2, x2, each 0 to 1023 */
    uint32_t has_mask;     /* 1 if the model gave a mask, else 0 */
    uint64_t track;        /* in records of a watch: the number that the object keeps from look to look; 0: none yet */
} palmtop_object;

/* Gets object `index` of an answer; both are counted from 0. Returns PALMTOP_NOT_FOUND if there is none. */
palmtop_status palmtop_result_get_object(palmtop_result result, size_t answer, size_t index, palmtop_object *object);

/* The rectangle of a mask in the upright picture. No pixel outside it is set. */
typedef struct palmtop_mask {
    size_t size; /* sizeof(palmtop_mask), set by you */
    uint32_t x;  /* first column */
    uint32_t y;  /* first row */
    uint32_t width;
    uint32_t height;
    uint64_t area; /* number of pixels that are set */
} palmtop_mask;

/* Computes the mask of an object and writes its rectangle to `mask`. If `pixels` is not null, the call also writes
 * width * height bytes there, row by row: 1 for each pixel that is set, 0 for the others. If `bytes` is less than
 * that, the call returns PALMTOP_TOO_SMALL, but still writes `mask`. Returns PALMTOP_NOT_FOUND if the object has no
 * mask or the model has no mask decoder. Takes some milliseconds. */
palmtop_status palmtop_result_get_mask(
    palmtop_result result, size_t answer, size_t index, palmtop_mask *mask, uint8_t *pixels, size_t bytes);

/* ---- Prefixes for another model ---------------------------------------------------------------------------------- */

/* A model that acts, such as the action expert of a robot, attends to what the decoder makes of pictures and an
 * instruction: keys and values of every layer, and the rows that come out behind the last one. A prefix is memory for
 * these, made once; docs/prefix.md has more about their numbers. */
typedef struct palmtop_prefix { uint64_t id; } palmtop_prefix;

/* What a prefix has room for, and what is kept of it. The comments end with the default. */
typedef struct palmtop_prefix_options {
    size_t size;
    uint32_t pictures;    /* maximum number of pictures, missing ones included, at most 512; 1 */
    uint32_t tokens;      /* maximum tokens of the text, begin-of-sequence and newline included; 256 */
    uint32_t keys_values; /* 1: keep keys and values; 1 */
    uint32_t hidden;      /* 1: keep the rows behind the last layer; 0: do not, and end with its keys and values; 1 */
} palmtop_prefix_options;

palmtop_status palmtop_prefix_options_init(palmtop_prefix_options *options, size_t size);

/* Computes the bytes that a prefix with these options (null: the defaults) would take, beside those of its session. */
palmtop_status palmtop_prefix_plan(palmtop_model model, const palmtop_prefix_options *options, uint64_t *bytes);

/* Allocates a prefix. All sessions of this model can use it. */
palmtop_status palmtop_prefix_new(palmtop_model model, const palmtop_prefix_options *options, palmtop_prefix *prefix);

/* Frees a prefix, and all that palmtop_prefix_get_info points to. Returns PALMTOP_BUSY while a call is using it. */
palmtop_status palmtop_prefix_free(palmtop_prefix prefix);

typedef struct palmtop_prefix_request {
    size_t size;                      /* sizeof(palmtop_prefix_request), set by you */
    const palmtop_features *pictures; /* in their order; an id of 0 is a missing one, such as that of a camera that a
                                       * robot does not have: it takes no time, nothing sees its rows, and they are
                                       * zeros */
    size_t picture_count;             /* at most the session's `pictures` and the prefix's */
    const char *text;                 /* begin-of-sequence is put before it, and a newline behind; null: `tokens` */
    const uint32_t *tokens;           /* if `text` is null: the tokens as they are; null: none */
    size_t token_count;
    uint32_t open;                    /* 1: nothing is put behind `text`; 0 */
    uint32_t reserved;
    uint64_t deadline_ns;             /* a time of palmtop_clock_ns; 0: no deadline */
} palmtop_prefix_request;

/* Runs pictures and a text through the decoder, all rows seeing each other, and keeps in `prefix` what others need to
 * attend to them. Allocates nothing. The session may answer before and after. If the call fails, `prefix` may be left
 * without rows. */
palmtop_status palmtop_compute_prefix(
    palmtop_session session, palmtop_prefix prefix, const palmtop_prefix_request *request);

/* What a prefix holds: rows of all pictures, picture after picture, then those of the text. Arrays are row-major,
 * without gaps; what is not kept, or has no rows, is null. They are part of the prefix, not copies, and valid until the
 * next call of palmtop_compute_prefix or palmtop_prefix_free with this prefix. */
typedef struct palmtop_prefix_info {
    size_t size;              /* sizeof(palmtop_prefix_info), set by you */
    const float *keys;        /* [layers][rows][kv_heads][head_dim], behind the rotary embedding */
    const float *values;      /* [layers][rows][kv_heads][head_dim] */
    const float *hidden;      /* [rows][width], behind the last norm */
    const uint8_t *mask;      /* [rows]: 1 if the row is there, 0 in a missing picture */
    const int32_t *positions; /* [rows]: how many rows that are there stand before it; in a missing picture, one less */
    uint32_t layers;
    uint32_t rows;            /* 0 before the first call, and after one that failed */
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t width;           /* of the decoder */
    uint32_t next_position;   /* of what comes behind: how many rows are there */
} palmtop_prefix_info;

/* Gets what a prefix holds. Returns PALMTOP_BUSY while it is computed. */
palmtop_status palmtop_prefix_get_info(palmtop_prefix prefix, palmtop_prefix_info *info);

/* ---- Watching ---------------------------------------------------------------------------------------------------- */

/* A watch asks the same questions of the frames of one or several cameras, and turns the answers into events:
 *
 *     palmtop_watch_new(model, "budget = '300ms'\n[[question]]\ndetect = 'person'", NULL, &watch);
 *     while (frame_comes(&pixels)) {
 *         palmtop_watch_frame(watch, 0, &pixels, 0, NULL);
 *         palmtop_record record = {.size = sizeof record};
 *         while (palmtop_watch_next(watch, &record) == PALMTOP_OK)
 *             printf("%s %s %s\n", record.question, record.rule, record.text);
 *     }
 *     palmtop_watch_free(watch);
 *
 * It has a session of its own. The decoder runs only if something moved in a question's zone, or if the question is due
 * for another reason; all questions that are due are answered together, with the answers of the last look as drafts.
 * Each answer is the one that palmtop_answer gives to the prompt, bit for bit; questions with `detect`, `segment` or
 * `choose` are answered under a grammar.
 *
 * MEMORY. palmtop_watch_new takes what palmtop_watch_plan states: session_bytes of the plan, and gate_bytes. Beside
 * that it takes the names, prompts and grammars of the questions, and 64 KiB for latencies. A frame that no question is
 * asked about allocates nothing. A look allocates while it reads its answers: the objects, their masks (a bit for each
 * pixel of the object's box), and the records, each with copies of its text and objects. A record that waits keeps that
 * memory until it is taken, and the one that was taken last until the next one is. At most 1024 records wait; when one
 * more comes, the oldest is lost and counted. */
typedef struct palmtop_watch { uint64_t id; } palmtop_watch;

/* The comments end with the default. */
typedef struct palmtop_watch_options {
    size_t size;
    const palmtop_session_options *session; /* threads, nice, cores, kv, isa, image_side, filter, lazy_memory,
                                             * on_thread_start.
                                             * The questions determine batch, prompt_tokens, new_tokens, pictures and
                                             * draft_tokens, and no image_side is above 8192; null: the session's
                                             * defaults */
    uint32_t all_answers; /* 1: a record for every answer, not only for those that change something; 0 */
    uint32_t recording;   /* 1: frames come from a recording: rules go by their times, but budget and latencies count
                           * from the call of palmtop_watch_frame; 0 */
} palmtop_watch_options;

palmtop_status palmtop_watch_options_init(palmtop_watch_options *options, size_t size);

/* Computes the memory that a watch would take, without creating it: that of its session, and in `gate_bytes` what the
 * gates of all cameras take. For the other parameters see palmtop_watch_new. */
palmtop_status palmtop_watch_plan(palmtop_model model, const char *questions, const palmtop_watch_options *options,
                                  palmtop_plan *plan, uint64_t *gate_bytes);

/* Creates a watch. `questions` is a text in TOML, the configuration of the program `palmtop watch`: [[question]] with
 * its rules, [[camera]], [zone], [gate], budget, every, at_least_every. Without [[camera]] there is one camera, called
 * "camera"; a [[camera]] needs a name, and its source is not opened. `model` in the text is ignored. Returns
 * PALMTOP_INVALID_ARGUMENT if the text is wrong; palmtop_last_error then names the line, or the question and the rule.
 * */
palmtop_status palmtop_watch_new(
    palmtop_model model, const char *questions, const palmtop_watch_options *options, palmtop_watch *watch);

/* Frees a watch, and the records that nobody took. Returns PALMTOP_BUSY while a call is using it. */
palmtop_status palmtop_watch_free(palmtop_watch watch);

/* What a frame led to. */
typedef struct palmtop_watch_report {
    size_t size;      /* sizeof(palmtop_watch_report), set by you */
    size_t records;   /* records that wait to be taken, older ones included */
    uint32_t encoded; /* 1 if the picture was encoded, else 0: nothing moved, or nothing was due */
    uint32_t answers; /* questions that were answered */
    uint32_t late;    /* questions for which the budget was too short; they come first next time */
    uint32_t spared;  /* questions that were due, but whose zone looks to the encoder as it did */
} palmtop_watch_report;

/* Takes a frame of camera number `camera`, in the order of the text, from 0. `time_ns` is when it was exposed, on
 * palmtop_clock_ns; 0 is now. Budget and latencies count from there. Looks at the frame, asks what is due, and returns
 * when that is done or the budget of the text has passed; a budget that passes is no error. `report` may be null.
 *
 * Returns PALMTOP_CANCELLED after palmtop_watch_cancel, and PALMTOP_BAD_IMAGE or PALMTOP_INVALID_ARGUMENT for a picture
 * that cannot be looked at. Records of answers that came before that wait all the same, and `report` is filled. The
 * watch can go on. The record that was taken last is gone. */
palmtop_status palmtop_watch_frame(palmtop_watch watch, uint32_t camera, const palmtop_pixels *pixels, uint64_t time_ns,
                                   palmtop_watch_report *report);

/* Ends all events, at the time of the last frame: their records wait then. Later frames may begin new ones. */
palmtop_status palmtop_watch_end(palmtop_watch watch);

/* Obeys a line: "ask" asks all questions about their camera's next frame, whether or not anything moves; "ask NAME"
 * asks one; "pause" looks at nothing until "resume". */
palmtop_status palmtop_watch_command(palmtop_watch watch, const char *line);

/* Gives a question another prompt, from its next look on, which then is with the next frame. What the answers are made
 * of stays: a question with `choose` is answered with one of its choices, and one with `detect` finds the same objects.
 * */
palmtop_status palmtop_watch_set_prompt(palmtop_watch watch, const char *question, const char *prompt);

/* Stops the call that is using the watch, within about the time of one layer, and all later ones until
 * palmtop_watch_reset_cancel, as palmtop_session_cancel does. You may call this from any thread at any time, but not
 * from a signal handler. */
palmtop_status palmtop_watch_cancel(palmtop_watch watch);

/* Clears the request to cancel, so that later frames are looked at again. */
palmtop_status palmtop_watch_reset_cancel(palmtop_watch watch);

/* What a watch has done since it was created. Latencies are of the last 4096 looks, from exposure to the last answer; 0
 * if there was none. */
typedef struct palmtop_watch_counts {
    size_t size;         /* sizeof(palmtop_watch_counts), set by you */
    uint64_t pictures;   /* frames */
    uint64_t not_looked; /* of those, that nothing was asked about: nothing moved, nothing was due, or it was paused */
    uint64_t still;      /* of those, in which nothing moved */
    uint64_t encoded;    /* frames that were encoded */
    uint64_t same;       /* of those, that nothing was asked about, since nothing was new to the encoder */
    uint64_t answers;    /* runs of the decoder */
    uint64_t spared;     /* answers that were not asked for, since nothing was new to the encoder */
    uint64_t late;       /* answers for which the budget was too short */
    uint64_t tokens;     /* tokens of the answers */
    uint64_t drafted;    /* of those, that the drafts had right */
    uint64_t events;     /* events that began */
    uint64_t records_lost; /* records that nobody took in time */
    uint64_t latency_p50_ns;
    uint64_t latency_p95_ns;
    uint64_t latency_p99_ns;
    uint64_t latency_max_ns; /* of all looks */
} palmtop_watch_counts;

/* Gets the counts. Sorts the latencies, in a copy of at most 64 KiB. */
palmtop_status palmtop_watch_get_counts(palmtop_watch watch, palmtop_watch_counts *counts);

enum { PALMTOP_RECORD_ANSWER = 1, PALMTOP_RECORD_EVENT = 2 };
enum { PALMTOP_EVENT_BEGINS = 1, PALMTOP_EVENT_ENDS = 2 };

/* Something that a watch tells. Its pointers are never null, and valid until the next call of palmtop_watch_next,
 * palmtop_watch_frame, palmtop_watch_end or palmtop_watch_free for this watch. All strings end with a zero. */
typedef struct palmtop_record {
    size_t size;         /* sizeof(palmtop_record), set by you */
    int32_t kind;        /* PALMTOP_RECORD_ANSWER or PALMTOP_RECORD_EVENT */
    int32_t phase;       /* of an event: PALMTOP_EVENT_BEGINS or PALMTOP_EVENT_ENDS; else 0 */
    uint64_t picture;    /* the frame's number among those of its camera, from 0 */
    uint64_t time_ns;    /* when the frame was exposed, on palmtop_clock_ns */
    uint64_t since_start_ns; /* from the first frame of the watch to this one */
    uint64_t unix_ns;    /* when the frame was exposed, by the system's clock, since 1970 in UTC */
    uint64_t latency_ns; /* from the frame's exposure until this was known */
    uint64_t lasted_ns;  /* at the end of an event: how long it lasted; else 0 */
    const char *camera;  /* name of the camera */
    const char *question; /* name of the question; its prompt if it has no name */
    const char *rule;    /* of an event: name of its rule; else empty */
    const char *id;      /* of an event: the same at its beginning and its end, and never given again; else empty */
    const char *text;    /* the answer; empty for events that palmtop_watch_end ended */
    size_t text_length;  /* without the zero */
    const char *label;   /* of an event about one object: its label; else empty */
    uint64_t track;      /* of an event about one object: its number; else 0 */
    size_t object_count; /* objects that the answer locates, in the question's zone */
    float score;         /* of an answer to a question with `choose`: its likelihood, 0 to 1; else -1 */
    uint32_t changed;    /* 1 if something is believed from now on that was not before; 0 only with all_answers */
} palmtop_record;

/* Takes the oldest record that waits. Returns PALMTOP_NOT_FOUND if none does. */
palmtop_status palmtop_watch_next(palmtop_watch watch, palmtop_record *record);

/* Gets object `index` of the record that was taken last, from 0. Returns PALMTOP_NOT_FOUND if there is none. Its label
 * is valid as long as the record. */
palmtop_status palmtop_watch_get_object(palmtop_watch watch, size_t index, palmtop_object *object);

/* Gets the mask of an object of the record that was taken last, as palmtop_result_get_mask does. It was computed
 * already. */
palmtop_status palmtop_watch_get_mask(
    palmtop_watch watch, size_t index, palmtop_mask *mask, uint8_t *pixels, size_t bytes);

/* Gives the record that was taken last as JSON, one line without its end, as `palmtop watch --json` prints it. The
 * string is valid as long as the record; `length` is without its zero. */
palmtop_status palmtop_watch_record_json(palmtop_watch watch, const char **json, size_t *length);

#ifdef __cplusplus
}
#endif

#endif
