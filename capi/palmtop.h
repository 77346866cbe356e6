/* palmtop.h: ask PaliGemma about pictures, on the CPU, from C and from all that calls C.
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
 * Whole programs: examples/c.
 *
 * HANDLES are numbers in a struct, passed by value. What a "new" or "open" call gives is yours until you free it. A handle
 * that is zero, freed, made up, or of an object of another process gives PALMTOP_INVALID_HANDLE everywhere, and never a
 * crash; freeing it changes nothing. Objects may be freed in any order: a session keeps its model, a result what it is about.
 *
 * THREADS. Every function may be called from every thread. A model, a grammar and a result may be used by any number of
 * threads at once. A session does one thing at a time, and so do features that are being written: a second call meanwhile
 * gives PALMTOP_BUSY at once and does no harm. To work on several pictures at once, make a session for each thread over one
 * model. palmtop_session_cancel is for all threads at any time. After fork(), a child must not use what its parent made.
 *
 * MEMORY. A session takes what palmtop_model_plan says when it is made. From then on palmtop_encode_pixels and palmtop_answer
 * allocate nothing up to the last token; palmtop_answer then allocates its result, or nothing if none is wanted.
 * palmtop_encode_file allocates the decoded picture. Where a call needs memory that cannot be had, it fails with
 * PALMTOP_OUT_OF_MEMORY if that is megabytes; a system that cannot give some hundred bytes ends the process.
 *
 * TEXT is UTF-8. Texts that go in end with a zero. Texts that come out do too, except the pieces of palmtop_piece_callback.
 *
 * UNITS. Sizes are bytes, sides are pixels, times are nanoseconds.
 *
 * FLOATING POINT. Calls compute in the default mode (rounding to nearest, subnormal numbers as they are, no traps), whatever the
 * caller has set, and leave the caller's as it was: the mode changes no bit of an answer. Callbacks run in the default mode.
 *
 * CALLBACKS must return: no exception and no longjmp may leave them. They may call any function of this library; what the
 * call that they are part of is using is then busy.
 *
 * STRUCTS with a first field `size` may grow at the end in later versions. Set options up with their init function, and the
 * size of structs that are filled for you to their sizeof; old programs then go on working with newer libraries.
 *
 * ADDRESSES. Null where something is needed gives PALMTOP_INVALID_ARGUMENT, as do sizes that cannot be. That an address is
 * otherwise what it is said to be only you can know.
 */
#ifndef PALMTOP_H
#define PALMTOP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ---------------------------------------------------------------------------------------------------------- */

/* Counts changes after which programs must be compiled again. */
#define PALMTOP_ABI_VERSION 1u

/* The version of the library that is linked; must be PALMTOP_ABI_VERSION of the header. Never fails. */
uint32_t palmtop_abi_version(void);

/* The release, such as "0.1.0". Never fails; the text is never freed. */
const char *palmtop_version(void);

/* ---- Errors ----------------------------------------------------------------------------------------------------------- */

/* What nearly every function returns: PALMTOP_OK, or what went wrong. A call that fails has changed nothing, unless said
 * otherwise, and sets handles that it would have given to zero. */
typedef int32_t palmtop_status;
enum {
    PALMTOP_OK = 0,
    PALMTOP_INVALID_ARGUMENT = 1, /* null, out of range, or not fitting each other */
    PALMTOP_INVALID_HANDLE = 2,   /* zero, freed, or never given out */
    PALMTOP_BUSY = 3,             /* another call is using the object */
    PALMTOP_TOO_SMALL = 4,        /* your buffer; how much it takes has been written */
    PALMTOP_BAD_MODEL = 5,        /* the model file is damaged, incomplete, or of another version */
    PALMTOP_BAD_IMAGE = 6,        /* the picture is broken, of an unknown kind, or too large */
    PALMTOP_IO = 7,               /* the system could not read */
    PALMTOP_OUT_OF_MEMORY = 8,    /* ask for a smaller session */
    PALMTOP_NO_THREADS = 9,       /* the system gives no more threads */
    PALMTOP_CANCELLED = 10,       /* by palmtop_session_cancel */
    PALMTOP_DEADLINE = 11,        /* it passed before the call was done */
    PALMTOP_NOT_FOUND = 12,       /* there is no such answer, object or mask */
    PALMTOP_INTERNAL = 13         /* a defect of the library. Free the object and make a new one; and please report it */
};

/* What went wrong in the last call that failed on this thread, and what to do about it: a sentence. Empty before the first.
 * Valid until another call fails on this thread, or the thread ends. Never null. */
const char *palmtop_last_error(void);

/* A short name of a status, such as "busy". Never null, never freed. */
const char *palmtop_status_name(palmtop_status status);

/* ---- Log -------------------------------------------------------------------------------------------------------------- */

enum {
    PALMTOP_LOG_OFF = 0,
    PALMTOP_LOG_ERROR = 1,
    PALMTOP_LOG_WARNING = 2,
    PALMTOP_LOG_INFO = 3,
    PALMTOP_LOG_DEBUG = 4
};

/* Hears what the library has to say beside errors, on any thread, several at once. `message` is valid until it returns. */
typedef void (*palmtop_log_callback)(void *user, int32_t level, const char *message);

/* Sends messages up to `level` to `callback`, for the whole process, instead of the one before; null for silence, which is the
 * state at the start. Once it returns, the one before is not called any more. Busy in the callback itself. */
palmtop_status palmtop_set_log(int32_t level, palmtop_log_callback callback, void *user);

/* ---- Models ----------------------------------------------------------------------------------------------------------- */

/* A model file in memory: weights, architecture and tokenizer. It is mapped and read as it is used, so opening is quick, and
 * processes share it. The file must not be changed while it is open. */
typedef struct palmtop_model { uint64_t id; } palmtop_model;

/* Opens the .palm file at `path`. */
palmtop_status palmtop_model_open(const char *path, palmtop_model *model);

/* Opens a model that is a part of the open file `fd`: from byte `offset` on, `length` bytes, or all to the end if 0. An asset
 * of an Android package, stored without compression, is one. `fd` remains yours and may be closed afterwards; its position
 * does not change, but nobody else may move it meanwhile. If `offset` is no multiple of 64, the model is read into memory as
 * a whole, and a warning goes to the log. Not on Windows. */
palmtop_status palmtop_model_open_fd(int32_t fd, uint64_t offset, uint64_t length, palmtop_model *model);

/* Says that the memory of a model is no longer in use. Called once, on any thread. */
typedef void (*palmtop_release_callback)(void *user);

/* Uses a model that lies at `data`, a multiple of 64. The memory must stay as it is until `release` is called, which happens
 * when the model and all that was made with it are freed; without `release`, for ever. If this fails, `release` is not called. */
palmtop_status palmtop_model_open_memory(
    const void *data, size_t bytes, palmtop_release_callback release, void *user, palmtop_model *model);

/* Frees the handle. The model's memory is given back with the last session, features and result of it. */
palmtop_status palmtop_model_free(palmtop_model model);

typedef struct palmtop_model_info {
    size_t size;               /* sizeof(palmtop_model_info), set by you */
    uint64_t file_bytes;
    uint32_t image_side;       /* pictures are resized to this square */
    uint32_t image_tokens;     /* of a prompt, beside those of its text */
    uint32_t vocabulary;       /* tokens that there are */
    uint32_t generation;       /* PaliGemma 1 or 2 */
    uint32_t vision_layers;
    uint32_t text_layers;
    uint32_t has_mask_decoder; /* 1 if palmtop_result_get_mask can work, else 0 */
    uint32_t reserved;
} palmtop_model_info;

palmtop_status palmtop_model_get_info(palmtop_model model, palmtop_model_info *info);

/* Reads the whole file and compares its checksums: PALMTOP_BAD_MODEL if something is damaged. Takes as long as the disk. */
palmtop_status palmtop_model_verify(palmtop_model model);

/* ---- Sessions --------------------------------------------------------------------------------------------------------- */

/* Memory and threads that answer. */
typedef struct palmtop_session { uint64_t id; } palmtop_session;

/* How keys and values are kept: as fits the model, or in 32, 16 or 8 bits. Answers may differ a little with the last. */
enum { PALMTOP_KV_AUTO = 0, PALMTOP_KV_F32 = 1, PALMTOP_KV_F16 = 2, PALMTOP_KV_INT8 = 3 };

/* Instruction sets of the kernels. All give the same bits; a session is refused (PALMTOP_INVALID_ARGUMENT) if the CPU does not
 * have the one it asks for. The default is the best that the CPU has, unless the environment variable PALMTOP_ISA, which is read
 * once, names another. */
enum {
    PALMTOP_ISA_DEFAULT = 0,
    PALMTOP_ISA_SCALAR = 1,       /* plain code: every CPU */
    PALMTOP_ISA_NEON = 2,         /* Armv8.0 */
    PALMTOP_ISA_NEON_DOTPROD = 3, /* with the dot product of bytes */
    PALMTOP_ISA_NEON_I8MM = 4,    /* with the matrix product of bytes too */
    PALMTOP_ISA_AVX2 = 5,
    PALMTOP_ISA_AVXVNNI = 6,
    PALMTOP_ISA_AVX512 = 7,       /* with VNNI */
    PALMTOP_ISA_AMX = 8
};

#define PALMTOP_NICE_AS_IT_IS 127

/* Called first on each thread that a session starts, `index` counting from 1: to give it a priority or a quality of service,
 * or to attach it to a virtual machine. All have returned when palmtop_session_new does. */
typedef void (*palmtop_thread_callback)(void *user, uint32_t index);

/* What a session must be able to do; its memory follows from this. */
typedef struct palmtop_session_options {
    size_t size;
    uint32_t batch;         /* prompts that are answered together; 1 */
    uint32_t prompt_tokens; /* tokens of a prompt at most, those of the picture not counted; 256 */
    uint32_t new_tokens;    /* tokens of an answer at most; 256 */
    uint32_t image_side;    /* pixels of the longer side of a picture at most; 16384 */
    int32_t kv;             /* PALMTOP_KV_AUTO */
    uint32_t threads;       /* that compute, the calling one included; 0: one for each physical core */
    int32_t nice;           /* -20 to 19, of the threads that are started; PALMTOP_NICE_AS_IT_IS. Linux and Android */
    uint32_t core_count;    /* entries of `cores`; 0: any core */
    const uint32_t *cores;  /* on which the threads that are started run, as the system numbers them. Linux and Android */
    palmtop_thread_callback on_thread_start; /* null */
    void *thread_user;
    int32_t isa;            /* PALMTOP_ISA_DEFAULT */
    uint32_t reserved;
} palmtop_session_options;

/* Sets the defaults, which are in the comments above. `size` is sizeof(palmtop_session_options). */
palmtop_status palmtop_session_options_init(palmtop_session_options *options, size_t size);

/* The memory of a session, and of one set of features. */
typedef struct palmtop_plan {
    size_t size;               /* sizeof(palmtop_plan), set by you */
    uint64_t session_bytes;    /* all that a session allocates, features included: the sum of the last six */
    uint64_t weights_bytes;    /* mapped from the file, shared, not part of the session */
    uint64_t kv_bytes;
    uint64_t activation_bytes;
    uint64_t thread_bytes;
    uint64_t image_bytes;
    uint64_t text_bytes;
    uint64_t features_bytes;
    uint32_t threads;
    uint32_t reserved;
} palmtop_plan;

/* Says what a session with these options (null: the defaults) would take. Takes nothing. */
palmtop_status palmtop_model_plan(palmtop_model model, const palmtop_session_options *options, palmtop_plan *plan);

/* Makes a session: takes its memory and starts its threads. The thread that calls it later computes too; nice and cores are
 * yours to set there. Wishes that the system does not grant go to the log. */
palmtop_status palmtop_session_new(
    palmtop_model model, const palmtop_session_options *options, palmtop_session *session);

/* Frees a session and ends its threads. Busy while a call is using it: cancel, and wait for that call to return. */
palmtop_status palmtop_session_free(palmtop_session session);

/* Stops the call that is using the session, within about the time of a layer: it returns PALMTOP_CANCELLED. So does every
 * later call, until palmtop_session_reset_cancel: a button that is pressed a moment too early is not lost. From any thread and
 * any callback, at any time; not from a signal handler. */
palmtop_status palmtop_session_cancel(palmtop_session session);

/* Makes calls possible again. */
palmtop_status palmtop_session_reset_cancel(palmtop_session session);

/* How long the last calls took. */
typedef struct palmtop_timings {
    size_t size;           /* sizeof(palmtop_timings), set by you */
    uint64_t encode_ns;    /* the last picture: resizing and image encoder */
    uint64_t prefill_ns;   /* the last prompts, up to their first tokens */
    uint64_t decode_ns;    /* all tokens behind the first */
    uint64_t decode_steps; /* each gives a token for every prompt that has not ended */
} palmtop_timings;

palmtop_status palmtop_session_get_timings(palmtop_session session, palmtop_timings *timings);

/* ---- Time ------------------------------------------------------------------------------------------------------------- */

/* A clock that only goes forward; never 0. Deadlines are times of this clock:
 *     options.deadline_ns = palmtop_clock_ns() + 200 * 1000000ull;
 * The same deadline can be given to palmtop_encode_pixels and palmtop_answer. */
uint64_t palmtop_clock_ns(void);

/* ---- Pictures --------------------------------------------------------------------------------------------------------- */

/* What the image encoder saw in a picture. Encode once, ask as often as you like. */
typedef struct palmtop_features { uint64_t id; } palmtop_features;

/* Memory for one picture; palmtop_plan's features_bytes. For all sessions of this model. */
palmtop_status palmtop_features_new(palmtop_model model, palmtop_features *features);

/* Frees them. Busy while a call is using them. */
palmtop_status palmtop_features_free(palmtop_features features);

/* Width and height in pixels of the picture, upright, in which boxes and masks are placed; 0 before the first one. */
palmtop_status palmtop_features_get_picture(palmtop_features features, uint32_t *width, uint32_t *height);

/* Forms of pixels. The first five have one plane. */
enum {
    PALMTOP_RGB = 1,
    PALMTOP_BGR = 2,
    PALMTOP_RGBA = 3, /* alpha is not looked at */
    PALMTOP_BGRA = 4, /* nor here */
    PALMTOP_GREY = 5,
    PALMTOP_NV12 = 6, /* luma; U and V in turn, for 2 x 2 pixels each */
    PALMTOP_NV21 = 7, /* luma; V and U in turn */
    PALMTOP_YUV420 = 8 /* luma; U; V: I420, and with steps Android's YUV_420_888 */
};

/* How luma and chroma are meant: matrix of ITU-R BT.601 or BT.709, and range. Android's camera gives the first unless it says
 * otherwise, JPEG the second, iOS's 420v and 420f in high definition the last two. */
enum {
    PALMTOP_BT601_LIMITED = 0, /* luma 16 to 235, chroma 16 to 240 */
    PALMTOP_BT601_FULL = 1,    /* 0 to 255 */
    PALMTOP_BT709_LIMITED = 2,
    PALMTOP_BT709_FULL = 3
};

typedef struct palmtop_plane {
    const uint8_t *data; /* the first sample */
    size_t bytes;        /* that can be read there; the last row need not be filled up to the stride */
    size_t stride;       /* bytes from the start of one row to the start of the next */
    size_t step;         /* bytes from one sample to the next in a row, for PALMTOP_YUV420 only; 0 is 1 */
} palmtop_plane;

/* A picture in memory. It is read where it lies, and must not change during the call. */
typedef struct palmtop_pixels {
    size_t size;
    int32_t format;    /* PALMTOP_RGB... */
    uint32_t width;    /* as it lies in memory */
    uint32_t height;
    uint32_t rotation; /* 0, 90, 180 or 270: degrees clockwise by which it must be turned to stand upright, as CameraX says; 0 */
    int32_t color;     /* PALMTOP_BT601_LIMITED */
    uint32_t reserved;
    palmtop_plane planes[3];
} palmtop_pixels;

/* Describes a picture that lies at `data` in one piece without gaps: rows behind each other, planes behind each other. `data`
 * is not read. For any other layout set the planes afterwards, or all by yourself (`data` null and a side of 0 then do). */
palmtop_status palmtop_pixels_init(
    palmtop_pixels *pixels, size_t size, int32_t format, uint32_t width, uint32_t height, const void *data, size_t bytes);

typedef struct palmtop_encode_options {
    size_t size;
    uint64_t deadline_ns; /* on palmtop_clock_ns; 0: none */
} palmtop_encode_options;

palmtop_status palmtop_encode_options_init(palmtop_encode_options *options, size_t size);

/* Looks at a picture in memory and writes `features`, which may hold nothing after a failure. Allocates nothing. */
palmtop_status palmtop_encode_pixels(palmtop_session session, palmtop_features features, const palmtop_pixels *pixels,
                                     const palmtop_encode_options *options);

/* Looks at the picture in a JPEG, PNG, WebP, BMP or GIF file of `bytes` bytes that lies at `data`; turns it as its Exif
 * orientation says. Allocates the decoded picture for the time of the call, at most 512 MiB. */
palmtop_status palmtop_encode_file(palmtop_session session, palmtop_features features, const void *data, size_t bytes,
                                   const palmtop_encode_options *options);

/* ---- Questions -------------------------------------------------------------------------------------------------------- */

/* What answers may be. */
typedef struct palmtop_grammar { uint64_t id; } palmtop_grammar;

/* Answers that are one of `count` texts and nothing else. */
palmtop_status palmtop_grammar_choices(
    palmtop_model model, const char *const *choices, size_t count, palmtop_grammar *grammar);

palmtop_status palmtop_grammar_free(palmtop_grammar grammar);

/* A part of an answer as it arises. */
typedef struct palmtop_piece {
    size_t size;
    const char *text; /* whole characters, `length` bytes, NOT ended by a zero; often one word, sometimes nothing */
    size_t length;
    uint32_t prompt;  /* which of the prompts it answers, from 0 on */
    int32_t token;    /* or -1 for the last piece of an answer, which gives what was held back */
} palmtop_piece;

/* Hears the pieces on the thread that called palmtop_answer; `piece` is valid until it returns. Returns 0 to go on; anything
 * else ends the answer to this prompt. */
typedef int32_t (*palmtop_piece_callback)(void *user, const palmtop_piece *piece);

typedef struct palmtop_answer_options {
    size_t size;
    uint64_t deadline_ns;    /* on palmtop_clock_ns; 0: none */
    uint64_t seed;           /* of chance; the same seed gives the same answer; 0 */
    palmtop_grammar grammar; /* id 0: none */
    uint32_t max_new_tokens; /* at most the session's new_tokens, which is what 0 means */
    uint32_t top_k;          /* only so many likeliest tokens; 0: all */
    float temperature;       /* 0: always the likeliest token */
    float top_p;             /* only the likeliest tokens that together have this probability; 0: all */
    uint32_t ignore_end;     /* 1: answer until max_new_tokens, whatever the model says; 0 */
    uint32_t reserved;
    palmtop_piece_callback on_piece; /* null */
    void *piece_user;
} palmtop_answer_options;

palmtop_status palmtop_answer_options_init(palmtop_answer_options *options, size_t size);

/* The answers of a call. */
typedef struct palmtop_result { uint64_t id; } palmtop_result;

/* Answers `count` prompts (1 to the session's batch, at most 256) about the picture in `features` together; each as it would
 * be answered alone. `result` may be null, if the pieces are all that is wanted: nothing is allocated then.
 *
 * With PALMTOP_CANCELLED and PALMTOP_DEADLINE, `result` holds what had been answered so far, or is zero if that was nothing.
 * So it is well to free it whatever this returns. */
palmtop_status palmtop_answer(palmtop_session session, palmtop_features features, const char *const *prompts, size_t count,
                              const palmtop_answer_options *options, palmtop_result *result);

/* Tasks with a wording of their own. Any other text is a prompt too. */
enum {
    PALMTOP_CAP = 1,      /* "cap en": no text; models without fine-tuning */
    PALMTOP_CAPTION = 2,  /* "caption en": no text */
    PALMTOP_DESCRIBE = 3, /* "describe en": no text */
    PALMTOP_ANSWER = 4,   /* "answer en TEXT" */
    PALMTOP_QUESTION = 5, /* "question en TEXT": a question that TEXT answers */
    PALMTOP_OCR = 6,      /* "ocr": no text, no language */
    PALMTOP_DETECT = 7,   /* "detect TEXT ; TEXT": boxes */
    PALMTOP_SEGMENT = 8   /* "segment TEXT ; TEXT": boxes and masks */
};

/* Writes the prompt of a task with `count` texts into `buffer`, `bytes` bytes, with a zero behind it, and its length without
 * the zero to `length`; that also if the buffer is too small (PALMTOP_TOO_SMALL) or null (PALMTOP_OK). `language` is a code
 * such as "en", which null means. Texts that cannot be part of such a prompt are refused. */
palmtop_status palmtop_prompt(int32_t task, const char *language, const char *const *items, size_t count, char *buffer,
                              size_t bytes, size_t *length);

/* ---- Results ---------------------------------------------------------------------------------------------------------- */

palmtop_status palmtop_result_free(palmtop_result result);

/* Answers in the result; 0 for a handle that is not valid. */
size_t palmtop_result_count(palmtop_result result);

/* Why an answer ended. */
enum {
    PALMTOP_STOP_END = 0,       /* the model ended it, or the grammar */
    PALMTOP_STOP_LIMIT = 1,     /* max_new_tokens */
    PALMTOP_STOP_CANCELLED = 2, /* palmtop_session_cancel */
    PALMTOP_STOP_DEADLINE = 3,
    PALMTOP_STOP_CALLBACK = 4   /* on_piece */
};

/* What is pointed to is valid until the result is freed. */
typedef struct palmtop_answer_info {
    size_t size;                /* sizeof(palmtop_answer_info), set by you */
    const char *text;           /* all of it, with <loc....> and <seg...>; a zero behind it */
    size_t text_length;         /* without the zero */
    const uint32_t *tokens;
    const float *probabilities; /* that the model gave to each token */
    size_t token_count;
    size_t object_count;        /* that the text locates */
    uint32_t prompt_tokens;     /* those of the picture included */
    int32_t stop;               /* PALMTOP_STOP_... */
    float likelihood;           /* the product of the probabilities, that of the end included */
    uint32_t reserved;
} palmtop_answer_info;

/* The answer to prompt `answer`, from 0 on. PALMTOP_NOT_FOUND if there is none. */
palmtop_status palmtop_result_get_answer(palmtop_result result, size_t answer, palmtop_answer_info *info);

typedef struct palmtop_object {
    size_t size;           /* sizeof(palmtop_object), set by you */
    const char *label;     /* as the model wrote it, perhaps empty; a zero behind it; valid until the result is freed */
    size_t label_length;   /* without the zero */
    float score;           /* likelihood of the label, 0 to 1; -1 without a label */
    float x_min;           /* the box: edges in pixels of the upright picture, not rounded */
    float y_min;
    float x_max;
    float y_max;
    uint16_t locations[4]; /* the model's own numbers: y1, x1, y2, x2, 0 to 1023 */
    uint32_t has_mask;     /* 1 if the model drew one, else 0 */
} palmtop_object;

/* Object `index` of an answer, both from 0 on. PALMTOP_NOT_FOUND if there is none. */
palmtop_status palmtop_result_get_object(palmtop_result result, size_t answer, size_t index, palmtop_object *object);

/* A mask: the rectangle of the upright picture outside of which no pixel is set. */
typedef struct palmtop_mask {
    size_t size; /* sizeof(palmtop_mask), set by you */
    uint32_t x;  /* its first column */
    uint32_t y;  /* its first row */
    uint32_t width;
    uint32_t height;
    uint64_t area; /* pixels that are set */
} palmtop_mask;

/* Computes the mask of an object and writes its rectangle to `mask`. If `pixels` is not null, it takes width * height of its
 * `bytes` bytes, row by row, 1 for a pixel that is set and 0 for another; PALMTOP_TOO_SMALL if there are fewer, and `mask` is
 * written nevertheless. PALMTOP_NOT_FOUND without a mask, and without a mask decoder in the model. Some milliseconds. */
palmtop_status palmtop_result_get_mask(
    palmtop_result result, size_t answer, size_t index, palmtop_mask *mask, uint8_t *pixels, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
