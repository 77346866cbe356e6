/* Nothing is allocated between the making of a session and the last token: the C library's functions are replaced by ones that
 * count, over all threads. Argument: a model. */
#include "check.h"

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static unsigned calls;

static void counted(void) { __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST); }

void *malloc(size_t bytes) {
    counted();
    return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) {
    counted();
    return __libc_calloc(n, bytes);
}
void *realloc(void *old, size_t bytes) {
    counted();
    return __libc_realloc(old, bytes);
}
void *memalign(size_t align, size_t bytes) {
    counted();
    return __libc_memalign(align, bytes);
}
void *aligned_alloc(size_t align, size_t bytes) {
    counted();
    return __libc_memalign(align, bytes);
}
int posix_memalign(void **out, size_t align, size_t bytes) {
    counted();
    *out = __libc_memalign(align, bytes);
    return *out == NULL ? 12 : 0;
}

static int32_t hear(void *user, const palmtop_piece *piece) {
    *(size_t *)user += piece->length;
    return 0;
}

/* A watch allocates nothing for frames that no question is asked about. */
static void still_frames(palmtop_model model, const uint8_t *frame, size_t bytes) {
    static const char questions[] = "max_new_tokens = 4\n[[question]]\nocr = true\n[[question]]\ndetect = 'cat'";
    palmtop_watch watch;
    palmtop_watch_report report = {0};
    palmtop_pixels pixels;
    unsigned round, quiet = 0, asked = 0;
    report.size = sizeof report;
    OK(palmtop_watch_new(model, questions, NULL, &watch));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 640, 480, frame, bytes));
    for (round = 0; round < 100; round++) {
        unsigned before = calls;
        OK(palmtop_watch_frame(watch, 0, &pixels, 0, &report));
        CHECK(report.encoded == 1 || calls == before);
        quiet += report.encoded == 0;
        asked += report.answers;
        if (round == 60) OK(palmtop_watch_command(watch, "pause"));
    }
    CHECK(quiet >= 39 && asked >= 2);
    OK(palmtop_watch_free(watch));
}

/* Neither do several pictures, drafts and prefixes: a window over a film. */
static void films(palmtop_model model, const uint8_t *frame, size_t bytes) {
    static const char *const prompts[] = {"caption en", "answer en what happens?"};
    palmtop_session_options limits;
    palmtop_answer_options options;
    palmtop_session session;
    palmtop_features ring[3], window[3];
    palmtop_request requests[2] = {{0}, {0}};
    palmtop_answer_info answers[2] = {{0}, {0}};
    palmtop_prefix_options room;
    palmtop_prefix_request camera = {0};
    palmtop_prefix_info rows = {0};
    palmtop_prefix prefix;
    palmtop_result result;
    palmtop_pixels pixels;
    unsigned round, before, i;
    size_t heard = 0;
    OK(palmtop_session_options_init(&limits, sizeof limits));
    limits.batch = 2;
    limits.pictures = 3;
    limits.draft_tokens = 4;
    limits.new_tokens = 12;
    OK(palmtop_session_new(model, &limits, &session));
    for (i = 0; i < 3; i++) OK(palmtop_features_new(model, &ring[i]));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 320, 200, frame, bytes));
    OK(palmtop_answer_options_init(&options, sizeof options));
    options.on_piece = hear;
    options.piece_user = &heard;
    options.ignore_end = 1;
    for (i = 0; i < 3; i++) OK(palmtop_encode_pixels(session, ring[i], &pixels, NULL));
    for (i = 0; i < 2; i++) {
        requests[i].size = sizeof requests[i];
        answers[i].size = sizeof answers[i];
        requests[i].prompt = prompts[i];
        requests[i].pictures = window + i;
        requests[i].picture_count = 3 - i;
    }
    for (i = 0; i < 3; i++) window[i] = ring[i];
    OK(palmtop_answer_requests(session, requests, 2, &options, &result));
    for (i = 0; i < 2; i++) {
        OK(palmtop_result_get_answer(result, i, &answers[i]));
        requests[i].draft = answers[i].tokens;
        requests[i].draft_count = answers[i].token_count;
    }
    OK(palmtop_prefix_options_init(&room, sizeof room));
    room.pictures = 3;
    OK(palmtop_prefix_new(model, &room, &prefix));
    camera.size = sizeof camera;
    camera.picture_count = 3;
    camera.text = "fold the shirt";
    rows.size = sizeof rows;
    before = calls;
    for (round = 0; round < 10; round++) {
        pixels.planes[0].data = frame + round * 100;
        OK(palmtop_encode_pixels(session, ring[round % 3], &pixels, NULL));
        for (i = 0; i < 3; i++) window[i] = ring[(round + 1 + i) % 3];
        OK(palmtop_answer_requests(session, requests, 2, &options, NULL));
        camera.pictures = window;
        OK(palmtop_compute_prefix(session, prefix, &camera));
        OK(palmtop_prefix_get_info(prefix, &rows));
    }
    CHECK(calls == before && heard > 0 && rows.rows > 0);
    OK(palmtop_prefix_free(prefix));
    OK(palmtop_result_free(result));
    for (i = 0; i < 3; i++) OK(palmtop_features_free(ring[i]));
    OK(palmtop_session_free(session));
}

int main(int argc, char **argv) {
    static const char *const prompts[] = {"caption en", "detect cat ; dog", "answer en wo ist die Größe 😀?"};
    static const char *const choices[] = {"yes", "no", "a red cat"};
    palmtop_model model;
    palmtop_session session;
    palmtop_features features;
    palmtop_grammar grammar;
    palmtop_session_options limits;
    palmtop_answer_options options;
    palmtop_encode_options looking;
    palmtop_pixels pixels, turned, packed;
    palmtop_result result;
    palmtop_timings timings = {0};
    uint8_t *frame;
    size_t bytes, heard = 0;
    unsigned before, round;
    CHECK(argc == 2);
    timings.size = sizeof timings;
    frame = slope(640, 480, &bytes);
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_session_options_init(&limits, sizeof limits));
    limits.batch = 3;
    limits.threads = 3;
    limits.new_tokens = 24;
    OK(palmtop_session_new(model, &limits, &session));
    OK(palmtop_features_new(model, &features));
    OK(palmtop_grammar_choices(model, choices, 3, &grammar));

    before = calls;
    CHECK(before > 0);
    for (round = 0; round < 20; round++) {
        OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 640, 480, frame, bytes));
        turned = pixels;
        turned.rotation = 90;
        OK(palmtop_pixels_init(&packed, sizeof packed, PALMTOP_BGRA, 320, 200, frame, bytes));
        OK(palmtop_encode_options_init(&looking, sizeof looking));
        OK(palmtop_answer_options_init(&options, sizeof options));
        looking.deadline_ns = options.deadline_ns = palmtop_clock_ns() + 3600 * 1000000000ull;
        options.on_piece = hear;
        options.piece_user = &heard;
        options.ignore_end = 1;
        if (round % 3 == 1) options.temperature = 0.7f;
        if (round % 4 == 3) options.grammar = grammar;
        OK(palmtop_encode_pixels(session, features, round % 3 == 0 ? &pixels : round % 3 == 1 ? &turned : &packed, &looking));
        OK(palmtop_answer(session, features, prompts, 3, &options, NULL));
        OK(palmtop_session_get_timings(session, &timings));
        OK(palmtop_session_cancel(session));
        OK(palmtop_session_reset_cancel(session));
    }
    CHECK(calls == before);
    CHECK(heard > 0 && timings.encode_ns > 0);

    /* The test can fail: a result is allocated. */
    OK(palmtop_answer(session, features, prompts, 3, &options, &result));
    CHECK(calls > before);
    OK(palmtop_result_free(result));
    films(model, frame, bytes);
    still_frames(model, frame, bytes);
    OK(palmtop_grammar_free(grammar));
    OK(palmtop_features_free(features));
    OK(palmtop_session_free(session));
    OK(palmtop_model_free(model));
    free(frame);
    puts("ok");
    return 0;
}
