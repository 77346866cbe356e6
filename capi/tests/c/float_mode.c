/* Answers have the same bits whatever mode of floating point the caller has set, when sessions are made and when they are used;
 * and the mode is the caller's again when a call returns. Argument: a model. */
#include "check.h"

#if defined __x86_64__
#include <xmmintrin.h>
/* Flushes subnormal numbers to zero, reads them as zeros, and rounds up. */
#define STRANGE 0xDFC0u
#define DEFAULT 0x1F80u
/* Without the notes of what has happened. */
static unsigned long mode(void) { return _mm_getcsr() & 0xFFC0u; }
static void set_mode(unsigned long mode) { _mm_setcsr((unsigned)mode); }
#elif defined __aarch64__
#define STRANGE (1ul << 24 | 1ul << 22)
#define DEFAULT 0ul
static unsigned long mode(void) {
    unsigned long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static void set_mode(unsigned long mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
#define STRANGE 0ul
#define DEFAULT 0ul
static unsigned long mode(void) { return 0; }
static void set_mode(unsigned long mode) { (void)mode; }
#endif

enum { TOKENS = 16 };

typedef struct outcome {
    uint32_t tokens[TOKENS];
    unsigned char probabilities[TOKENS * sizeof(float)];
    size_t count;
} outcome;

static unsigned long before; /* the caller's mode */

/* Leaves another mode behind. */
static int32_t on_piece(void *user, const palmtop_piece *piece) {
    (void)piece;
    ++*(int *)user;
    CHECK(mode() == DEFAULT);
    set_mode(STRANGE);
    return 0;
}

static void on_thread(void *user, uint32_t index) {
    (void)user;
    (void)index;
    set_mode(STRANGE);
}

static outcome answer(const char *path, float temperature, const void *pixels, size_t bytes) {
    static const char *const PROMPT[] = {"caption en"};
    palmtop_model model;
    palmtop_session session;
    palmtop_features features;
    palmtop_session_options limits;
    palmtop_pixels picture;
    palmtop_answer_options options;
    palmtop_result result;
    palmtop_answer_info info = {0};
    outcome out;
    int pieces = 0;
    memset(&out, 0, sizeof out);
    info.size = sizeof info;
    OK(palmtop_session_options_init(&limits, sizeof limits));
    limits.threads = 3;
    limits.new_tokens = TOKENS;
    limits.on_thread_start = on_thread;
    OK(palmtop_answer_options_init(&options, sizeof options));
    options.temperature = temperature;
    options.top_p = temperature > 0 ? 0.875f : 0;
    options.ignore_end = 1;
    options.on_piece = on_piece;
    options.piece_user = &pieces;
    OK(palmtop_pixels_init(&picture, sizeof picture, PALMTOP_NV12, 64, 48, pixels, bytes));
    OK(palmtop_model_open(path, &model));
    OK(palmtop_session_new(model, &limits, &session));
    CHECK(mode() == before);
    OK(palmtop_features_new(model, &features));
    OK(palmtop_encode_pixels(session, features, &picture, NULL));
    CHECK(mode() == before);
    OK(palmtop_answer(session, features, PROMPT, 1, &options, &result));
    CHECK(mode() == before);
    OK(palmtop_result_get_answer(result, 0, &info));
    CHECK(info.token_count == TOKENS && pieces >= TOKENS);
    out.count = info.token_count;
    memcpy(out.tokens, info.tokens, sizeof out.tokens);
    memcpy(out.probabilities, info.probabilities, sizeof out.probabilities);
    OK(palmtop_result_free(result));
    OK(palmtop_features_free(features));
    OK(palmtop_session_free(session));
    OK(palmtop_model_free(model));
    /* An error leaves the mode alone too. */
    WANT(PALMTOP_INVALID_HANDLE, palmtop_session_free(session));
    CHECK(mode() == before);
    return out;
}

int main(int argc, char **argv) {
    static const float TEMPERATURES[] = {0, 1};
    size_t bytes, i;
    uint8_t *pixels = slope(64, 48, &bytes);
    CHECK(argc == 2);
    for (i = 0; i < 2; i++) {
        outcome plain, strange;
        before = mode();
        CHECK(before == DEFAULT);
        plain = answer(argv[1], TEMPERATURES[i], pixels, bytes);
        set_mode(STRANGE);
        before = mode();
        strange = answer(argv[1], TEMPERATURES[i], pixels, bytes);
        set_mode(DEFAULT);
        CHECK(memcmp(&plain, &strange, sizeof plain) == 0);
    }
    free(pixels);
    puts("ok");
    return 0;
}
