/* Every function with everything that it can be handed wrongly: an error each time, and all works afterwards.
 * Arguments: a model with a mask decoder, a picture, and something that is neither. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static palmtop_model model;
static palmtop_session session;
static palmtop_features features;
static palmtop_result result;
static palmtop_grammar grammar;
static palmtop_watch watch;
static palmtop_prefix prefix;

static uint8_t *frame;
static size_t frame_bytes;

/* Handles that name nothing of the kind that is wanted. */
static uint64_t bad[12];

static void fill_bad(void) {
    palmtop_features freed;
    size_t n = 0;
    OK(palmtop_features_new(model, &freed));
    OK(palmtop_features_free(freed));
    bad[n++] = 0;
    bad[n++] = 1;
    bad[n++] = UINT64_MAX;
    bad[n++] = freed.id;
    bad[n++] = freed.id + 1;
    bad[n++] = (uint64_t)(uintptr_t)&model;
    bad[n++] = (uint64_t)(uintptr_t)frame;
    bad[n++] = 0x0100000000ffffffull;
    bad[n++] = 0x0200000000000007ull;
    bad[n++] = 0x03ffffffff000000ull;
    bad[n++] = 0x0600000000000000ull;
    bad[n++] = 0x8000000000000000ull;
}

/* Where the bytes of `id` happen to be a living handle of that kind, there is nothing to be refused. */
static int lives(uint64_t id) {
    return id == model.id || id == session.id || id == features.id || id == result.id || id == grammar.id ||
           id == watch.id || id == prefix.id;
}

static const char *const PROMPT[] = {"caption en"};

/* A request about one picture; `pictures` stay where they are. */
static palmtop_request asking(const palmtop_features *pictures) {
    palmtop_request request = {0};
    request.size = sizeof request;
    request.prompt = PROMPT[0];
    request.pictures = pictures;
    request.picture_count = 1;
    return request;
}

/* A prefix of one picture. */
static palmtop_prefix_request seen_by(const palmtop_features *pictures) {
    palmtop_prefix_request request = {0};
    request.size = sizeof request;
    request.pictures = pictures;
    request.picture_count = 1;
    request.text = "fold the shirt";
    return request;
}

/* Every frame is looked at, and every answer told. */
static const char QUESTIONS[] = "max_new_tokens = 4\n[gate]\npixels = false\nfeatures = false\n[[question]]\nname = 'ocr'\nocr = true";

static void handles(void) {
    palmtop_model_info info = {0};
    palmtop_plan plan = {0};
    palmtop_timings timings = {0};
    palmtop_answer_info answer = {0};
    palmtop_object object = {0};
    palmtop_mask mask = {0};
    palmtop_pixels pixels;
    palmtop_answer_options options;
    uint32_t width, height;
    palmtop_prefix_request one_camera = seen_by(&features);
    palmtop_prefix_info rows = {0};
    size_t i, k;
    uint64_t others[7];
    palmtop_watch_report report = {0};
    palmtop_watch_counts counts = {0};
    palmtop_record record = {0};
    const char *json;
    size_t length;
    uint64_t gates;
    info.size = sizeof info;
    plan.size = sizeof plan;
    timings.size = sizeof timings;
    answer.size = sizeof answer;
    object.size = sizeof object;
    mask.size = sizeof mask;
    report.size = sizeof report;
    counts.size = sizeof counts;
    record.size = sizeof record;
    rows.size = sizeof rows;
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    OK(palmtop_answer_options_init(&options, sizeof options));
    others[0] = model.id;
    others[1] = session.id;
    others[2] = features.id;
    others[3] = result.id;
    others[4] = grammar.id;
    others[5] = watch.id;
    others[6] = prefix.id;
    for (i = 0; i < sizeof bad / sizeof *bad + 7; i++) {
        uint64_t id = i < 7 ? others[i] : bad[i - 7];
        palmtop_model m = {id};
        palmtop_session s = {id}, new_session = {7};
        palmtop_features f = {id}, new_features = {7};
        palmtop_result r = {id}, new_result = {7};
        palmtop_grammar g = {id}, new_grammar = {7};
        palmtop_watch w = {id}, new_watch = {7};
        palmtop_request request = asking(&features), about = asking(&f);
        palmtop_prefix x = {id}, new_prefix = {7};
        palmtop_prefix_request cameras = seen_by(&f);
        if (i >= 7 && lives(id)) continue;
        if (id != model.id) {
            WANT(PALMTOP_INVALID_HANDLE, palmtop_model_get_info(m, &info));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_model_verify(m));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_model_preload(m));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_model_lock(m));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_model_plan(m, NULL, &plan));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_session_new(m, NULL, &new_session));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_features_new(m, &new_features));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_grammar_choices(m, PROMPT, 1, &new_grammar));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_plan(m, QUESTIONS, NULL, &plan, &gates));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_new(m, QUESTIONS, NULL, &new_watch));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_model_free(m));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_prefix_plan(m, NULL, &gates));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_prefix_new(m, NULL, &new_prefix));
            CHECK(new_watch.id == 0 && new_prefix.id == 0);
            CHECK(new_session.id == 0 && new_features.id == 0 && new_grammar.id == 0);
        }
        if (id != session.id) {
            WANT(PALMTOP_INVALID_HANDLE, palmtop_session_cancel(s));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_session_reset_cancel(s));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_session_get_timings(s, &timings));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_encode_pixels(s, features, &pixels, NULL));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_encode_file(s, features, frame, frame_bytes, NULL));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_answer(s, features, PROMPT, 1, NULL, &new_result));
            CHECK(new_result.id == 0);
            new_result.id = 7;
            WANT(PALMTOP_INVALID_HANDLE, palmtop_answer_requests(s, &request, 1, NULL, &new_result));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_compute_prefix(s, prefix, &one_camera));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_session_free(s));
            CHECK(new_result.id == 0);
        }
        if (id != features.id) {
            WANT(PALMTOP_INVALID_HANDLE, palmtop_features_get_picture(f, &width, &height));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_encode_pixels(session, f, &pixels, NULL));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_encode_file(session, f, frame, frame_bytes, NULL));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_answer(session, f, PROMPT, 1, NULL, NULL));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_answer_requests(session, &about, 1, NULL, NULL));
            if (id != 0) WANT(PALMTOP_INVALID_HANDLE, palmtop_compute_prefix(session, prefix, &cameras));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_features_free(f));
        }
        if (id != prefix.id) {
            WANT(PALMTOP_INVALID_HANDLE, palmtop_compute_prefix(session, x, &one_camera));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_prefix_get_info(x, &rows));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_prefix_free(x));
        }
        if (id != result.id) {
            CHECK(palmtop_result_count(r) == 0);
            WANT(PALMTOP_INVALID_HANDLE, palmtop_result_get_answer(r, 0, &answer));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_result_get_object(r, 0, 0, &object));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_result_get_mask(r, 0, 0, &mask, NULL, 0));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_result_free(r));
        }
        if (id != watch.id) {
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_frame(w, 0, &pixels, 0, &report));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_end(w));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_command(w, "ask"));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_set_prompt(w, "ocr", "ocr"));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_cancel(w));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_reset_cancel(w));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_get_counts(w, &counts));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_next(w, &record));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_get_object(w, 0, &object));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_get_mask(w, 0, &mask, NULL, 0));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_record_json(w, &json, &length));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_watch_free(w));
        }
        if (id != grammar.id && id != 0) {
            options.grammar = g;
            WANT(PALMTOP_INVALID_HANDLE, palmtop_answer(session, features, PROMPT, 1, &options, NULL));
            WANT(PALMTOP_INVALID_HANDLE, palmtop_answer_requests(session, &request, 1, &options, NULL));
        }
        if (id != grammar.id) WANT(PALMTOP_INVALID_HANDLE, palmtop_grammar_free(g));
    }
    /* Freed twice, of every kind. */
    for (k = 0; k < 2; k++) {
        palmtop_status want = k == 0 ? PALMTOP_OK : PALMTOP_INVALID_HANDLE;
        static palmtop_session s;
        static palmtop_features f;
        static palmtop_grammar g;
        static palmtop_watch w;
        static palmtop_prefix x;
        if (k == 0) {
            OK(palmtop_prefix_new(model, NULL, &x));
            OK(palmtop_session_new(model, NULL, &s));
            OK(palmtop_features_new(model, &f));
            OK(palmtop_grammar_choices(model, PROMPT, 1, &g));
            OK(palmtop_watch_new(model, QUESTIONS, NULL, &w));
        }
        WANT(want, palmtop_session_free(s));
        WANT(want, palmtop_features_free(f));
        WANT(want, palmtop_grammar_free(g));
        WANT(want, palmtop_watch_free(w));
        WANT(want, palmtop_prefix_free(x));
    }
}

/* Structs whose size is wrong. `init` of each kind also refuses null and sizes that are none. */
#define SIZES(type, variable, statement) SIZES_FROM(sizeof(type), type, variable, statement)
/* The same where the struct of the first version ended at `first`. */
#define SIZES_FROM(first, type, variable, statement)                                                                             \
    do {                                                                                                             \
        static const size_t wrong[] = {0, 1, 7, (first)-1, 5000, SIZE_MAX};                                   \
        size_t w;                                                                                                    \
        for (w = 0; w < sizeof wrong / sizeof *wrong; w++) {                                                         \
            (variable).size = wrong[w];                                                                              \
            WANT(PALMTOP_INVALID_ARGUMENT, statement);                                                               \
        }                                                                                                            \
        (variable).size = sizeof(type);                                                                              \
    } while (0)

static void structs(void) {
    enum { first = offsetof(palmtop_session_options, isa) };
    palmtop_session_options limits;
    palmtop_pixels pixels;
    palmtop_encode_options looking;
    palmtop_answer_options answering;
    palmtop_model_info info = {0};
    palmtop_plan plan = {0};
    palmtop_timings timings = {0};
    palmtop_answer_info answer = {0};
    palmtop_object object = {0};
    palmtop_mask mask = {0};
    palmtop_watch_options watching;
    palmtop_watch_report report = {0};
    palmtop_watch_counts counts = {0};
    palmtop_record record = {0};
    palmtop_watch made;
    palmtop_prefix_options room;
    palmtop_prefix_request one_camera = seen_by(&features);
    palmtop_prefix_info rows = {0};
    palmtop_prefix none = {7};
    uint64_t gates;
    palmtop_session s;
    struct {
        palmtop_answer_options options;
        uint64_t from_the_future;
    } newer;
    struct {
        palmtop_model_info info;
        uint64_t from_the_future;
    } newer_info;
    struct {
        palmtop_request request;
        uint64_t from_the_future;
    } newer_requests[2];
    palmtop_request request = asking(&features), two[2];
    char misplaced[sizeof(palmtop_session_options) + 1];

    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_session_options_init(NULL, sizeof limits));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_session_options_init(&limits, 0));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_session_options_init(&limits, SIZE_MAX));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_session_options_init((void *)(misplaced + 1), sizeof limits));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_encode_options_init(NULL, sizeof looking));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_encode_options_init(&looking, 1));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_options_init(NULL, sizeof answering));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_options_init(&answering, 8));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_pixels_init(NULL, sizeof pixels, PALMTOP_RGB, 1, 1, frame, 3));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_pixels_init(&pixels, 3, PALMTOP_RGB, 1, 1, frame, 3));
    OK(palmtop_session_options_init(&limits, sizeof limits));
    OK(palmtop_encode_options_init(&looking, sizeof looking));
    OK(palmtop_answer_options_init(&answering, sizeof answering));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    CHECK(limits.batch == 1 && limits.prompt_tokens == 256 && limits.nice == PALMTOP_NICE_AS_IT_IS);
    CHECK(limits.pictures == 1 && limits.draft_tokens == 0);

    plan.size = sizeof plan;
    /* A caller that was compiled before `isa` was there: what lies behind its struct is not read. */
    limits.size = first;
    limits.isa = 99;
    OK(palmtop_model_plan(model, &limits, &plan));
    limits.size = sizeof limits;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_plan(model, &limits, &plan));
    limits.isa = PALMTOP_ISA_SCALAR;
    OK(palmtop_session_new(model, &limits, &s));
    OK(palmtop_session_free(s));
    limits.isa = PALMTOP_ISA_DEFAULT;
    /* And one from before there were several pictures. */
    limits.size = offsetof(palmtop_session_options, pictures);
    limits.pictures = 0;
    limits.draft_tokens = UINT32_MAX;
    OK(palmtop_model_plan(model, &limits, &plan));
    limits.size = sizeof limits;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_plan(model, &limits, &plan));
    limits.pictures = 1;
    limits.draft_tokens = 0;
    SIZES_FROM(first, palmtop_session_options, limits, palmtop_session_new(model, &limits, &s));
    SIZES_FROM(first, palmtop_session_options, limits, palmtop_model_plan(model, &limits, &plan));
    SIZES(palmtop_plan, plan, palmtop_model_plan(model, NULL, &plan));
    SIZES(palmtop_pixels, pixels, palmtop_encode_pixels(session, features, &pixels, NULL));
    SIZES(palmtop_encode_options, looking, palmtop_encode_pixels(session, features, &pixels, &looking));
    SIZES(palmtop_encode_options, looking, palmtop_encode_file(session, features, frame, frame_bytes, &looking));
    SIZES(palmtop_answer_options, answering, palmtop_answer(session, features, PROMPT, 1, &answering, NULL));
    SIZES(palmtop_answer_options, answering, palmtop_answer_requests(session, &request, 1, &answering, NULL));
    SIZES(palmtop_request, request, palmtop_answer_requests(session, &request, 1, NULL, NULL));
    /* All of a list have one size. */
    two[0] = two[1] = request;
    SIZES(palmtop_request, two[1], palmtop_answer_requests(session, two, 2, NULL, NULL));
    two[1].size = sizeof two[1] + 8;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(session, two, 2, NULL, NULL));
    CHECK(strstr(palmtop_last_error(), "request 1") != NULL);
    SIZES(palmtop_model_info, info, palmtop_model_get_info(model, &info));
    SIZES_FROM(offsetof(palmtop_timings, prefix_ns), palmtop_timings, timings, palmtop_session_get_timings(session, &timings));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_options_init(NULL, sizeof room));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_options_init(&room, 8));
    OK(palmtop_prefix_options_init(&room, sizeof room));
    CHECK(room.pictures == 1 && room.tokens == 256 && room.keys_values == 1 && room.hidden == 1);
    SIZES(palmtop_prefix_options, room, palmtop_prefix_new(model, &room, &none));
    SIZES(palmtop_prefix_options, room, palmtop_prefix_plan(model, &room, &gates));
    CHECK(none.id == 0 && gates == 0);
    SIZES(palmtop_prefix_request, one_camera, palmtop_compute_prefix(session, prefix, &one_camera));
    SIZES(palmtop_prefix_info, rows, palmtop_prefix_get_info(prefix, &rows));
    SIZES(palmtop_answer_info, answer, palmtop_result_get_answer(result, 0, &answer));
    SIZES_FROM(offsetof(palmtop_object, track), palmtop_object, object, palmtop_result_get_object(result, 0, 0, &object));
    SIZES(palmtop_mask, mask, palmtop_result_get_mask(result, 0, 0, &mask, NULL, 0));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_options_init(NULL, sizeof watching));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_options_init(&watching, 8));
    OK(palmtop_watch_options_init(&watching, sizeof watching));
    SIZES(palmtop_watch_options, watching, palmtop_watch_new(model, QUESTIONS, &watching, &made));
    SIZES(palmtop_watch_options, watching, palmtop_watch_plan(model, QUESTIONS, &watching, &plan, &gates));
    SIZES(palmtop_plan, plan, palmtop_watch_plan(model, QUESTIONS, NULL, &plan, &gates));
    watching.session = &limits;
    SIZES_FROM(first, palmtop_session_options, limits, palmtop_watch_new(model, QUESTIONS, &watching, &made));
    SIZES(palmtop_watch_report, report, palmtop_watch_frame(watch, 0, &pixels, 0, &report));
    OK(palmtop_watch_frame(watch, 0, &pixels, 0, &report));
    CHECK(report.records == 1 && report.encoded == 1 && report.answers == 1 && report.late == 0 && report.spared == 0);
    SIZES(palmtop_watch_counts, counts, palmtop_watch_get_counts(watch, &counts));
    /* A record that has no place is not taken. */
    SIZES(palmtop_record, record, palmtop_watch_next(watch, &record));
    OK(palmtop_watch_next(watch, &record));
    CHECK(record.kind == PALMTOP_RECORD_ANSWER && strcmp(record.question, "ocr") == 0 && record.object_count == 0);

    /* A newer program's fields are refused if they are used, and filled with nothing. */
    OK(palmtop_answer_options_init(&newer.options, sizeof newer));
    CHECK(newer.from_the_future == 0);
    newer.from_the_future = 1;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, PROMPT, 1, &newer.options, NULL));
    newer.from_the_future = 0;
    OK(palmtop_answer(session, features, PROMPT, 1, &newer.options, NULL));
    newer_requests[0].request = newer_requests[1].request = asking(&features);
    newer_requests[0].request.size = newer_requests[1].request.size = sizeof *newer_requests;
    newer_requests[0].from_the_future = newer_requests[1].from_the_future = 0;
    OK(palmtop_answer_requests(session, &newer_requests[0].request, 1, NULL, NULL));
    /* Two are found where they are: there is no room for the second, and that is all that is wrong. */
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(session, &newer_requests[0].request, 2, NULL, NULL));
    CHECK(strstr(palmtop_last_error(), "2 prompts at once") != NULL);
    newer_requests[1].from_the_future = 1;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(session, &newer_requests[0].request, 2, NULL, NULL));
    CHECK(strstr(palmtop_last_error(), "palmtop_request uses fields") != NULL);
    newer_info.info.size = sizeof newer_info;
    newer_info.from_the_future = 5;
    OK(palmtop_model_get_info(model, &newer_info.info));
    CHECK(newer_info.from_the_future == 5 && newer_info.info.image_side > 0);
}

static void models(const char *path, const char *other) {
    palmtop_model m = {7};
    palmtop_status status;
    int32_t fd;
    static uint64_t memory[32];
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open(NULL, &m));
    CHECK(m.id == 0);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open(path, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open("\xff\xfe", &m));
    WANT(PALMTOP_IO, palmtop_model_open("", &m));
    WANT(PALMTOP_IO, palmtop_model_open("/nowhere/at/all", &m));
    WANT(PALMTOP_IO, palmtop_model_open("/", &m));
    WANT(PALMTOP_IO, palmtop_model_open("/dev/zero", &m));
    WANT(PALMTOP_BAD_MODEL, palmtop_model_open(other, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_read(NULL, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_read(path, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_read("\xff\xfe", &m));
    WANT(PALMTOP_IO, palmtop_model_read("/nowhere/at/all", &m));
    WANT(PALMTOP_IO, palmtop_model_read("/", &m));
    WANT(PALMTOP_IO, palmtop_model_read("/dev/zero", &m));
    WANT(PALMTOP_BAD_MODEL, palmtop_model_read(other, &m));
    CHECK(m.id == 0);
    OK(palmtop_model_read(path, &m));
    OK(palmtop_model_preload(m));
    status = palmtop_model_lock(m);
    CHECK(status == PALMTOP_OK || status == PALMTOP_OUT_OF_MEMORY);
    OK(palmtop_model_verify(m));
    OK(palmtop_model_free(m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_fd(-1, 0, 0, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_fd(-77, 0, 0, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_fd(12345, 0, 0, &m));
    fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_fd(fd, 0, 0, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_fd(fd, UINT64_MAX, 0, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_fd(fd, 0, UINT64_MAX, &m));
    WANT(PALMTOP_BAD_MODEL, palmtop_model_open_fd(fd, 0, 100, &m));
    WANT(PALMTOP_BAD_MODEL, palmtop_model_open_fd(fd, 64, 0, &m));
    WANT(PALMTOP_BAD_MODEL, palmtop_model_open_fd(fd, 1, 0, &m));
    OK(palmtop_model_open_fd(fd, 0, 0, &m));
    close(fd);
    /* The descriptor is not needed any more. */
    OK(palmtop_model_verify(m));
    OK(palmtop_model_free(m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_fd(fd, 0, 0, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_memory(NULL, 64, NULL, NULL, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_memory(memory, 0, NULL, NULL, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_memory(memory, SIZE_MAX, NULL, NULL, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_memory((char *)memory + 1, 8, NULL, NULL, &m));
    WANT(PALMTOP_BAD_MODEL, palmtop_model_open_memory((void *)(((uintptr_t)memory + 63) / 64 * 64), 64, NULL, NULL, &m));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_model_open_memory(memory, 64, NULL, NULL, NULL));
    CHECK(m.id == 0);
}

static void limits(void) {
    static const uint32_t core = 0;
    palmtop_session_options good, o;
    palmtop_session s = {7};
    OK(palmtop_session_options_init(&good, sizeof good));
#define REFUSED(want, change)                                                                                        \
    do {                                                                                                             \
        o = good;                                                                                                    \
        change;                                                                                                      \
        WANT(want, palmtop_session_new(model, &o, &s));                                                              \
        CHECK(s.id == 0);                                                                                            \
    } while (0)
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.batch = 0);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.batch = UINT32_MAX);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.prompt_tokens = 0);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.prompt_tokens = UINT32_MAX);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.new_tokens = UINT32_MAX);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.pictures = 0);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.pictures = UINT32_MAX);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.draft_tokens = UINT32_MAX);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.filter = 4);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.filter = -1);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.image_side = 0);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.image_side = UINT32_MAX);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.threads = UINT32_MAX);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.kv = 4);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.kv = -1);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.isa = 9);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.isa = -1);
    /* No CPU has the sets of two architectures. */
#if defined __x86_64__
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.isa = PALMTOP_ISA_NEON);
#else
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.isa = PALMTOP_ISA_AVX2);
#endif
    CHECK(strstr(palmtop_last_error(), "this CPU does not have") != NULL);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.nice = 20);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.nice = -21);
    REFUSED(PALMTOP_INVALID_ARGUMENT, o.core_count = 1);
    REFUSED(PALMTOP_INVALID_ARGUMENT, (o.core_count = 5000, o.cores = &core));
    REFUSED(PALMTOP_INVALID_ARGUMENT, (o.core_count = 1, o.cores = (const uint32_t *)(const void *)((const char *)&core + 1)));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_session_new(model, NULL, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_features_new(model, NULL));
}

static void pictures(const uint8_t *file, size_t file_bytes) {
    palmtop_pixels good, p;
    uint32_t side;
    size_t cut;
    OK(palmtop_pixels_init(&good, sizeof good, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_pixels_init(&p, sizeof p, 0, 64, 48, frame, frame_bytes));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_pixels_init(&p, sizeof p, 99, 64, 48, frame, frame_bytes));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_pixels_init(&p, sizeof p, PALMTOP_NV12, 64, 48, frame, frame_bytes - 1));
    WANT(PALMTOP_INVALID_ARGUMENT,
         palmtop_pixels_init(&p, sizeof p, PALMTOP_RGBA, UINT32_MAX, UINT32_MAX, frame, frame_bytes));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_encode_pixels(session, features, NULL, NULL));
#define BAD_PIXELS(change)                                                                                           \
    do {                                                                                                             \
        p = good;                                                                                                    \
        change;                                                                                                      \
        WANT(PALMTOP_INVALID_ARGUMENT, palmtop_encode_pixels(session, features, &p, NULL));                          \
    } while (0)
    BAD_PIXELS(p.format = 0);
    BAD_PIXELS(p.format = -1);
    BAD_PIXELS(p.format = PALMTOP_YUV420);
    BAD_PIXELS(p.format = PALMTOP_RGB);
    BAD_PIXELS(p.width = 0);
    BAD_PIXELS(p.height = 0);
    BAD_PIXELS(p.width = 65);
    BAD_PIXELS(p.height = 49);
    BAD_PIXELS(p.width = UINT32_MAX);
    BAD_PIXELS((p.width = UINT32_MAX, p.height = UINT32_MAX, p.planes[0].stride = SIZE_MAX));
    BAD_PIXELS(p.rotation = 91);
    BAD_PIXELS(p.color = 4);
    BAD_PIXELS(p.color = -1);
    BAD_PIXELS(p.planes[0].data = NULL);
    BAD_PIXELS(p.planes[1].data = NULL);
    BAD_PIXELS(p.planes[0].bytes = 0);
    BAD_PIXELS(p.planes[1].bytes = 0);
    BAD_PIXELS(p.planes[1].bytes = SIZE_MAX);
    BAD_PIXELS(p.planes[1].bytes--);
    BAD_PIXELS(p.planes[0].stride = 63);
    BAD_PIXELS(p.planes[0].stride = SIZE_MAX);
    BAD_PIXELS(p.planes[1].stride = 0);
    BAD_PIXELS((p.format = PALMTOP_YUV420, p.planes[2] = p.planes[1], p.planes[2].step = SIZE_MAX));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_features_get_picture(features, NULL, &side));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_features_get_picture(features, &side, NULL));

    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_encode_file(session, features, NULL, 10, NULL));
    WANT(PALMTOP_BAD_IMAGE, palmtop_encode_file(session, features, NULL, 0, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_encode_file(session, features, file, SIZE_MAX, NULL));
    WANT(PALMTOP_BAD_IMAGE, palmtop_encode_file(session, features, frame, frame_bytes, NULL));
    for (cut = 1; cut < file_bytes; cut += 1 + file_bytes / 9)
        WANT(PALMTOP_BAD_IMAGE, palmtop_encode_file(session, features, file, cut, NULL));
}

static void questions(void) {
    static const char *const broken[] = {"caption \xc3"}, *const nothing[] = {NULL}, *const image[] = {"a <image> b"};
    static const char *long_prompt[1];
    palmtop_answer_options good, o;
    palmtop_features empty;
    palmtop_result r = {7};
    palmtop_grammar g = {7};
    char *much = malloc(100001);
    CHECK(much != NULL);
    memset(much, 'a', 100000);
    much[100000] = 0;
    long_prompt[0] = much;
    OK(palmtop_answer_options_init(&good, sizeof good));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, NULL, 1, NULL, &r));
    CHECK(r.id == 0);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, NULL, 0, NULL, &r));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, PROMPT, 0, NULL, &r));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, PROMPT, SIZE_MAX, NULL, &r));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, nothing, 1, NULL, &r));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, broken, 1, NULL, &r));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, image, 1, NULL, &r));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, long_prompt, 1, NULL, &r));
#define BAD_ANSWER(change)                                                                                           \
    do {                                                                                                             \
        o = good;                                                                                                    \
        change;                                                                                                      \
        WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, PROMPT, 1, &o, &r));                        \
        CHECK(r.id == 0);                                                                                            \
    } while (0)
    BAD_ANSWER(o.max_new_tokens = 257);
    BAD_ANSWER(o.max_new_tokens = UINT32_MAX);
    BAD_ANSWER(o.temperature = -1);
    BAD_ANSWER(o.temperature = (float)(1e300 * 1e300));
    BAD_ANSWER(o.temperature = (float)(1e300 * 1e300 * 0));
    BAD_ANSWER(o.top_p = (float)(1e300 * 1e300 * 0));
    OK(palmtop_features_new(model, &empty));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, empty, PROMPT, 1, NULL, &r));
    OK(palmtop_features_free(empty));
    o = good;
    o.deadline_ns = 1;
    WANT(PALMTOP_DEADLINE, palmtop_answer(session, features, PROMPT, 1, &o, &r));
    CHECK(r.id == 0);
    o.deadline_ns = UINT64_MAX;
    OK(palmtop_answer(session, features, PROMPT, 1, &o, NULL));

    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_grammar_choices(model, NULL, 1, &g));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_grammar_choices(model, PROMPT, 0, &g));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_grammar_choices(model, nothing, 1, &g));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_grammar_choices(model, broken, 1, &g));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_grammar_choices(model, long_prompt, 1, &g));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_grammar_choices(model, PROMPT, 1, NULL));
    free(much);
}

static void requests(void) {
    static const uint32_t draft[] = {5, UINT32_MAX, 7};
    palmtop_session_options limits;
    palmtop_session s;
    palmtop_features empty, twice[2], many[600];
    palmtop_request good, r, two[2];
    palmtop_result result_of = {7};
    size_t i;
    OK(palmtop_session_options_init(&limits, sizeof limits));
    limits.pictures = 2;
    limits.draft_tokens = 2;
    limits.new_tokens = 8;
    OK(palmtop_session_new(model, &limits, &s));
    OK(palmtop_features_new(model, &empty));
    for (i = 0; i < 600; i++) many[i] = features;
    twice[0] = twice[1] = features;
    good = asking(twice);
    good.picture_count = 2;
    good.draft = draft;
    good.draft_count = 3;
    OK(palmtop_answer_requests(s, &good, 1, NULL, NULL));
#define BAD_REQUEST(change)                                                                                          \
    do {                                                                                                             \
        r = good;                                                                                                    \
        change;                                                                                                      \
        WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, &r, 1, NULL, &result_of));                         \
        CHECK(result_of.id == 0);                                                                                    \
    } while (0)
    BAD_REQUEST(r.prompt = NULL);
    BAD_REQUEST(r.prompt = "caption \xc3");
    BAD_REQUEST(r.prompt = "a <image> b");
    BAD_REQUEST(r.pictures = NULL);
    BAD_REQUEST(r.pictures = (const palmtop_features *)(const void *)((const char *)many + 1));
    BAD_REQUEST(r.picture_count = 0);
    CHECK(strstr(palmtop_last_error(), "0 pictures in a prompt") != NULL);
    BAD_REQUEST((r.pictures = many, r.picture_count = 3));
    CHECK(strstr(palmtop_last_error(), "3 pictures in a prompt") != NULL);
    BAD_REQUEST((r.pictures = many, r.picture_count = 513));
    CHECK(strstr(palmtop_last_error(), "513 pictures, but 512") != NULL);
    BAD_REQUEST(r.picture_count = SIZE_MAX);
    BAD_REQUEST((r.pictures = &empty, r.picture_count = 1));
    BAD_REQUEST(r.draft = NULL);
    BAD_REQUEST(r.draft = (const uint32_t *)(const void *)((const char *)draft + 1));
    BAD_REQUEST(r.draft_count = SIZE_MAX);
    twice[1] = empty;
    BAD_REQUEST((void)0);
    twice[1] = features;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, NULL, 1, NULL, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, NULL, 0, NULL, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, &good, 0, NULL, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, &good, 257, NULL, NULL));
    two[0] = two[1] = good;
    two[0].pictures = two[1].pictures = many;
    two[0].picture_count = two[1].picture_count = SIZE_MAX / 2 + 1;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, two, 2, NULL, NULL));
    two[0].picture_count = two[1].picture_count = 300;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, two, 2, NULL, NULL));
    CHECK(strstr(palmtop_last_error(), "600 pictures, but 512") != NULL);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(s, &good, SIZE_MAX, NULL, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT,
         palmtop_answer_requests(s, (const palmtop_request *)(const void *)((const char *)&r + 1), 1, NULL, NULL));
    /* Features that were freed are named by nobody. */
    OK(palmtop_features_free(empty));
    twice[1] = empty;
    WANT(PALMTOP_INVALID_HANDLE, palmtop_answer_requests(s, &good, 1, NULL, &result_of));
    twice[1] = features;
    /* A session for one picture takes no two. */
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer_requests(session, &good, 1, NULL, NULL));
    OK(palmtop_answer_requests(s, &good, 1, NULL, &result_of));
    OK(palmtop_result_free(result_of));
    OK(palmtop_session_free(s));
}

static void prefixes(void) {
    static const uint32_t tokens[] = {5, 7}, beyond[] = {UINT32_MAX};
    palmtop_prefix_options good, o;
    palmtop_prefix_request fine = seen_by(&features), r;
    palmtop_prefix_info rows = {0};
    palmtop_features empty, many[600];
    palmtop_prefix x = {7};
    uint64_t bytes = 7, more;
    size_t i;
    rows.size = sizeof rows;
    OK(palmtop_prefix_options_init(&good, sizeof good));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_new(model, NULL, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_plan(model, NULL, NULL));
    o = good;
    o.pictures = 513;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_new(model, &o, &x));
    CHECK(x.id == 0);
    o.pictures = UINT32_MAX;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_plan(model, &o, &bytes));
    CHECK(bytes == 0);
    o = good;
    o.tokens = UINT32_MAX;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_new(model, &o, &x));
    OK(palmtop_prefix_plan(model, NULL, &bytes));
    o = good;
    o.hidden = 0;
    OK(palmtop_prefix_plan(model, &o, &more));
    CHECK(more < bytes);
    o.tokens = 100;
    OK(palmtop_prefix_new(model, &o, &x));
    OK(palmtop_prefix_get_info(x, &rows));
    CHECK(rows.rows == 0 && rows.keys == NULL && rows.mask == NULL && rows.next_position == 0);
    OK(palmtop_compute_prefix(session, x, &fine));
    OK(palmtop_prefix_get_info(x, &rows));
    CHECK(rows.rows > 0 && rows.keys != NULL && rows.values != NULL && rows.hidden == NULL && rows.mask[0] == 1);
    CHECK(rows.positions[rows.rows - 1] == (int32_t)rows.rows - 1 && rows.next_position == rows.rows);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prefix_get_info(x, NULL));
    OK(palmtop_features_new(model, &empty));
    for (i = 0; i < 600; i++) many[i] = features;
#define BAD_PREFIX(change)                                                                                           \
    do {                                                                                                             \
        OK(palmtop_compute_prefix(session, x, &fine));                                                               \
        r = fine;                                                                                                    \
        change;                                                                                                      \
        WANT(PALMTOP_INVALID_ARGUMENT, palmtop_compute_prefix(session, x, &r));                                      \
    } while (0)
    BAD_PREFIX(r.pictures = NULL);
    BAD_PREFIX(r.pictures = (const palmtop_features *)(const void *)((const char *)many + 1));
    BAD_PREFIX((r.pictures = many, r.picture_count = 2));
    BAD_PREFIX((r.pictures = many, r.picture_count = 513));
    BAD_PREFIX(r.picture_count = SIZE_MAX);
    BAD_PREFIX(r.pictures = &empty);
    BAD_PREFIX(r.text = "\xff");
    BAD_PREFIX(r.text = "a <image> b");
    BAD_PREFIX((r.tokens = tokens, r.token_count = 2));
    CHECK(strstr(palmtop_last_error(), "not both") != NULL);
    BAD_PREFIX((r.text = NULL, r.token_count = 2));
    BAD_PREFIX((r.text = NULL, r.tokens = beyond, r.token_count = 1));
    BAD_PREFIX((r.text = NULL, r.tokens = tokens, r.token_count = SIZE_MAX));
    BAD_PREFIX((r.text = NULL, r.tokens = (const uint32_t *)(const void *)((const char *)tokens + 1), r.token_count = 1));
    /* Nothing at all: no picture that is there, and no text. */
    many[0].id = 0;
    BAD_PREFIX((r.text = NULL, r.pictures = many));
    OK(palmtop_prefix_get_info(x, &rows));
    CHECK(rows.rows == 0 && rows.keys == NULL);
    BAD_PREFIX((r.text = NULL, r.picture_count = 0));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_compute_prefix(session, x, NULL));
    r = fine;
    r.deadline_ns = 1;
    WANT(PALMTOP_DEADLINE, palmtop_compute_prefix(session, x, &r));
    OK(palmtop_session_cancel(session));
    WANT(PALMTOP_CANCELLED, palmtop_compute_prefix(session, x, &fine));
    OK(palmtop_session_reset_cancel(session));
    r.deadline_ns = UINT64_MAX;
    r.pictures = many;
    r.open = 1;
    OK(palmtop_compute_prefix(session, x, &r));
    OK(palmtop_prefix_get_info(x, &rows));
    CHECK(rows.mask[0] == 0 && rows.positions[0] == -1 && rows.next_position < rows.rows && rows.keys[0] == 0);
    OK(palmtop_features_free(empty));
    OK(palmtop_prefix_free(x));
}

static void prompts(void) {
    static const char *const cats[] = {"cat", "traffic light"}, *const semicolon[] = {"a;b"}, *const nothing[] = {NULL};
    const char *wanted = "detect cat ; traffic light";
    char buffer[64];
    size_t length = 7, i;
    OK(palmtop_prompt(PALMTOP_DETECT, NULL, cats, 2, buffer, sizeof buffer, &length));
    CHECK(strcmp(buffer, wanted) == 0 && length == strlen(wanted));
    for (i = 0; i <= length + 1; i++) {
        size_t k;
        memset(buffer, 'x', sizeof buffer);
        WANT(i > length ? PALMTOP_OK : PALMTOP_TOO_SMALL, palmtop_prompt(PALMTOP_DETECT, NULL, cats, 2, buffer, i, &length));
        CHECK(length == strlen(wanted));
        for (k = i > length ? i : 0; k < sizeof buffer; k++) CHECK(buffer[k] == 'x');
    }
    OK(palmtop_prompt(PALMTOP_DETECT, NULL, cats, 2, NULL, 0, &length));
    OK(palmtop_prompt(PALMTOP_CAPTION, "de", NULL, 0, buffer, sizeof buffer, &length));
    CHECK(strcmp(buffer, "caption de") == 0);
    OK(palmtop_prompt(PALMTOP_OCR, NULL, NULL, 0, buffer, sizeof buffer, &length));
    OK(palmtop_prompt(PALMTOP_ANSWER, "en", cats, 1, buffer, sizeof buffer, &length));
    CHECK(strcmp(buffer, "answer en cat") == 0);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_DETECT, NULL, cats, 2, buffer, sizeof buffer, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(0, NULL, NULL, 0, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(99, NULL, cats, 1, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_CAPTION, "english", NULL, 0, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_CAPTION, "\xff", NULL, 0, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_CAPTION, "en", cats, 1, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_ANSWER, "en", cats, 2, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_DETECT, "en", NULL, 0, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_DETECT, "en", NULL, 1, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_DETECT, "en", nothing, 1, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_DETECT, "en", cats, SIZE_MAX, buffer, sizeof buffer, &length));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_prompt(PALMTOP_SEGMENT, "en", semicolon, 1, buffer, sizeof buffer, &length));
}

static void results(void) {
    palmtop_answer_info answer = {0};
    palmtop_object object = {0};
    palmtop_mask mask = {0};
    uint8_t *pixels;
    size_t area, set = 0, i;
    answer.size = sizeof answer;
    object.size = sizeof object;
    mask.size = sizeof mask;
    CHECK(palmtop_result_count(result) == 1);
    WANT(PALMTOP_NOT_FOUND, palmtop_result_get_answer(result, 1, &answer));
    WANT(PALMTOP_NOT_FOUND, palmtop_result_get_answer(result, SIZE_MAX, &answer));
    WANT(PALMTOP_NOT_FOUND, palmtop_result_get_object(result, 0, 1, &object));
    WANT(PALMTOP_NOT_FOUND, palmtop_result_get_object(result, 1, 0, &object));
    WANT(PALMTOP_NOT_FOUND, palmtop_result_get_mask(result, 0, 1, &mask, NULL, 0));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_result_get_answer(result, 0, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_result_get_object(result, 0, 0, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_result_get_mask(result, 0, 0, NULL, NULL, 0));

    OK(palmtop_result_get_answer(result, 0, &answer));
    CHECK(answer.object_count == 1 && answer.stop == PALMTOP_STOP_END && strlen(answer.text) == answer.text_length);
    OK(palmtop_result_get_object(result, 0, 0, &object));
    /* y from 1/4 to 3/4 and x from 0 to 1/2 of 64 x 48. */
    CHECK(strcmp(object.label, "cat") == 0 && object.label_length == 3 && object.has_mask == 1);
    CHECK(object.x_min == 0 && object.x_max == 32 && object.y_min == 12 && object.y_max == 36);
    CHECK(object.locations[0] == 256 && object.locations[1] == 0 && object.locations[2] == 768 && object.locations[3] == 512);
    CHECK(object.score > 0 && object.score <= 1);
    OK(palmtop_result_get_mask(result, 0, 0, &mask, NULL, 0));
    CHECK(mask.x == 0 && mask.y == 12 && mask.width == 32 && mask.height == 24);
    area = (size_t)mask.width * mask.height;
    pixels = malloc(area);
    CHECK(pixels != NULL);
    WANT(PALMTOP_TOO_SMALL, palmtop_result_get_mask(result, 0, 0, &mask, pixels, area - 1));
    WANT(PALMTOP_TOO_SMALL, palmtop_result_get_mask(result, 0, 0, &mask, pixels, 0));
    OK(palmtop_result_get_mask(result, 0, 0, &mask, pixels, area));
    for (i = 0; i < area; i++) {
        CHECK(pixels[i] <= 1);
        set += pixels[i];
    }
    CHECK(set == mask.area && set > 0);
    free(pixels);
}

static palmtop_watch_options telling_all(void) {
    palmtop_watch_options options;
    OK(palmtop_watch_options_init(&options, sizeof options));
    options.all_answers = 1;
    return options;
}

static void watches(void) {
    static const char *const wrong[] = {
        "", "[[question]]", "[[question]]\nocr = 1", "nonsense", "[[question]]\nocr = true\nwhat = 1",
        "[[question]]\nocr = true\ncamera = 'none'", "[[question]]\ndetect = 'a;b'", "batch = 0\n[[question]]\nocr = true",
        "[[question]]\nocr = true\n[[question]]\nocr = true", "[[question]]\nask = 'x'\nchoose = ['\xff']",
        "[[camera]]\nsource = 'ftp://x'\n[[question]]\nocr = true", "[[camera]]\n[[question]]\nocr = true",
        "[[question]]\nocr = true\n[[question.rule]]\nappears = true"};
    palmtop_watch_options options = telling_all();
    palmtop_session_options limits;
    palmtop_watch_report report = {0};
    palmtop_watch_counts counts = {0};
    palmtop_plan plan = {0}, of_session = {0};
    palmtop_pixels pixels, p;
    palmtop_record record = {0};
    palmtop_object object = {0};
    palmtop_mask mask = {0};
    palmtop_watch w = {7};
    const char *json;
    size_t length, i;
    uint64_t gates = 7;
    char *much = malloc(100001);
    CHECK(much != NULL);
    memset(much, 'a', 100000);
    much[100000] = 0;
    report.size = sizeof report;
    counts.size = sizeof counts;
    plan.size = of_session.size = sizeof plan;
    record.size = sizeof record;
    object.size = sizeof object;
    mask.size = sizeof mask;
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, wrong[i], NULL, &w));
        CHECK(w.id == 0);
    }
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, NULL, NULL, &w));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, "\xff", NULL, &w));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, much, NULL, &w));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, QUESTIONS, NULL, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_plan(model, NULL, NULL, &plan, &gates));
    CHECK(gates == 0);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_plan(model, QUESTIONS, NULL, NULL, &gates));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_plan(model, QUESTIONS, NULL, &plan, NULL));
    OK(palmtop_session_options_init(&limits, sizeof limits));
    options.session = &limits;
    limits.threads = UINT32_MAX;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, QUESTIONS, &options, &w));
    limits.threads = 0;
    limits.image_side = 0;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, QUESTIONS, &options, &w));
    options.session = (const palmtop_session_options *)(const void *)((const char *)&limits + 1);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_new(model, QUESTIONS, &options, &w));

    /* The plan is that of a session with these limits, and what gates take. */
    limits.image_side = 640;
    options.session = &limits;
    OK(palmtop_watch_plan(model, QUESTIONS, &options, &plan, &gates));
    limits.batch = 77;
    limits.new_tokens = 99;
    OK(palmtop_watch_plan(model, QUESTIONS, &options, &of_session, &gates));
    CHECK(plan.session_bytes == of_session.session_bytes && plan.session_bytes > 0 && gates == 0);
    OK(palmtop_watch_plan(model, "[[question]]\nocr = true", &options, &plan, &gates));
    CHECK(gates > 0);

    OK(palmtop_watch_new(model, QUESTIONS, &options, &w));
    WANT(PALMTOP_NOT_FOUND, palmtop_watch_next(w, &record));
    WANT(PALMTOP_NOT_FOUND, palmtop_watch_get_object(w, 0, &object));
    WANT(PALMTOP_NOT_FOUND, palmtop_watch_get_mask(w, 0, &mask, NULL, 0));
    WANT(PALMTOP_NOT_FOUND, palmtop_watch_record_json(w, &json, &length));
    OK(palmtop_watch_end(w));
    OK(palmtop_watch_get_counts(w, &counts));
    CHECK(counts.pictures == 0 && counts.latency_p50_ns == 0 && counts.latency_max_ns == 0);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_frame(w, 1, &pixels, 0, &report));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_frame(w, UINT32_MAX, &pixels, 0, &report));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_frame(w, 0, NULL, 0, &report));
    p = pixels;
    p.planes[0].bytes--;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_frame(w, 0, &p, 0, &report));
    p = pixels;
    p.rotation = 91;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_frame(w, 0, &p, 0, &report));
    OK(palmtop_watch_frame(w, 0, &pixels, 1, NULL));
    OK(palmtop_watch_frame(w, 0, &pixels, 0, &report));
    CHECK(report.records == 2 && report.answers == 1);
    /* Times that go back, or lie at the end of all time. */
    OK(palmtop_watch_frame(w, 0, &pixels, UINT64_MAX, &report));
    OK(palmtop_watch_frame(w, 0, &pixels, 1, &report));
    for (i = 0; palmtop_watch_next(w, &record) == PALMTOP_OK; i++) {
        CHECK(record.picture == i && record.kind == PALMTOP_RECORD_ANSWER && record.rule[0] == 0 && record.score == -1);
        OK(palmtop_watch_record_json(w, &json, &length));
        CHECK(strstr(json, "\"record\":\"answer\"") != NULL && strlen(json) == length);
        WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_record_json(w, NULL, &length));
        WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_record_json(w, &json, NULL));
        WANT(PALMTOP_NOT_FOUND, palmtop_watch_get_object(w, 0, &object));
        WANT(PALMTOP_NOT_FOUND, palmtop_watch_get_object(w, SIZE_MAX, &object));
        WANT(PALMTOP_NOT_FOUND, palmtop_watch_get_mask(w, 0, &mask, NULL, 0));
    }
    CHECK(i == 4);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_next(w, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_get_counts(w, NULL));

    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_command(w, NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_command(w, "\xff"));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_command(w, "dance"));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_command(w, much));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_command(w, "ask nobody"));
    CHECK(strstr(palmtop_last_error(), "ocr") != NULL);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_set_prompt(w, NULL, "ocr"));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_set_prompt(w, "ocr", NULL));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_set_prompt(w, "nobody", "ocr"));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_set_prompt(w, "ocr", much));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_watch_set_prompt(w, "ocr", "\xc3"));
    OK(palmtop_watch_set_prompt(w, "ocr", "caption en"));
    OK(palmtop_watch_command(w, "pause"));
    OK(palmtop_watch_frame(w, 0, &pixels, 0, &report));
    CHECK(report.answers == 0);
    OK(palmtop_watch_command(w, "resume"));
    OK(palmtop_watch_command(w, "ask ocr"));
    OK(palmtop_watch_frame(w, 0, &pixels, 0, &report));
    CHECK(report.answers == 1);

    OK(palmtop_watch_cancel(w));
    WANT(PALMTOP_CANCELLED, palmtop_watch_frame(w, 0, &pixels, 0, &report));
    CHECK(strstr(palmtop_last_error(), "palmtop_watch_reset_cancel") != NULL && report.records == 1);
    OK(palmtop_watch_reset_cancel(w));
    OK(palmtop_watch_frame(w, 0, &pixels, 0, &report));
    CHECK(report.records == 2);
    OK(palmtop_watch_get_counts(w, &counts));
    CHECK(counts.records_lost == 0 && counts.pictures == 8 && counts.answers == 6);
    OK(palmtop_watch_free(w));

    /* A budget that is over before it begins: nothing is answered, and that is no error. */
    OK(palmtop_watch_new(model, "budget = '0s'\n[[question]]\nocr = true", NULL, &w));
    OK(palmtop_watch_frame(w, 0, &pixels, 0, &report));
    CHECK(report.late == 1 && report.answers == 0 && report.encoded == 0 && report.records == 0);
    OK(palmtop_watch_free(w));
    free(much);
}

/* Frames for a watch until it is cancelled. */
static void *gives_frames(void *user) {
    palmtop_pixels pixels;
    palmtop_status status;
    (void)user;
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    do {
        status = palmtop_watch_frame(watch, 0, &pixels, 0, NULL);
        CHECK(status == PALMTOP_OK || status == PALMTOP_BUSY || status == PALMTOP_CANCELLED);
    } while (status != PALMTOP_CANCELLED);
    return NULL;
}

/* During a call on another thread a watch is busy for all but the one who stops it. */
static void busy_watch(void) {
    palmtop_watch_counts counts = {0};
    palmtop_pixels pixels;
    pthread_t thread;
    unsigned seen = 0;
    counts.size = sizeof counts;
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    CHECK(pthread_create(&thread, NULL, gives_frames, NULL) == 0);
    while (seen != 7) {
        if (palmtop_watch_get_counts(watch, &counts) == PALMTOP_BUSY) seen |= 1;
        if (palmtop_watch_command(watch, "ask") == PALMTOP_BUSY) seen |= 2;
        if (palmtop_watch_end(watch) == PALMTOP_BUSY) seen |= 4;
    }
    OK(palmtop_watch_cancel(watch));
    CHECK(pthread_join(thread, NULL) == 0);
    OK(palmtop_watch_reset_cancel(watch));
    OK(palmtop_watch_frame(watch, 0, &pixels, 0, NULL));
}

static void *from_another_thread(void *user) {
    palmtop_timings timings = {0};
    palmtop_pixels pixels;
    palmtop_request request = asking(&features);
    palmtop_prefix_request one_camera = seen_by(&features);
    timings.size = sizeof timings;
    if (user != NULL) CHECK(palmtop_last_error()[0] == 0); /* a new thread has had none */
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    WANT(PALMTOP_BUSY, palmtop_session_get_timings(session, &timings));
    WANT(PALMTOP_BUSY, palmtop_encode_pixels(session, features, &pixels, NULL));
    WANT(PALMTOP_BUSY, palmtop_encode_file(session, features, frame, frame_bytes, NULL));
    WANT(PALMTOP_BUSY, palmtop_answer(session, features, PROMPT, 1, NULL, NULL));
    WANT(PALMTOP_BUSY, palmtop_answer_requests(session, &request, 1, NULL, NULL));
    WANT(PALMTOP_BUSY, palmtop_compute_prefix(session, prefix, &one_camera));
    WANT(PALMTOP_BUSY, palmtop_session_free(session));
    WANT(PALMTOP_BUSY, palmtop_features_free(features));
    return NULL;
}

/* In the middle of an answer, from its own thread and another one. */
static int32_t in_between(void *user, const palmtop_piece *piece) {
    int *heard = user;
    pthread_t thread;
    uint32_t width, height;
    palmtop_session second;
    CHECK(piece->size == sizeof *piece);
    if ((*heard)++ > 0) return 0;
    CHECK(pthread_create(&thread, NULL, from_another_thread, heard) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    from_another_thread(NULL);
    /* Reading is allowed, and so is all that is about something else. */
    OK(palmtop_features_get_picture(features, &width, &height));
    CHECK(width == 64 && height == 48);
    OK(palmtop_session_new(model, NULL, &second));
    OK(palmtop_answer(second, features, PROMPT, 1, NULL, NULL));
    OK(palmtop_session_free(second));
    return 0;
}

static int32_t stop_here(void *user, const palmtop_piece *piece) {
    (void)user;
    (void)piece;
    return 1;
}

static void busy(void) {
    palmtop_answer_options o;
    palmtop_answer_info answer = {0};
    palmtop_request request = asking(&features);
    palmtop_result r = {0};
    int heard = 0;
    answer.size = sizeof answer;
    OK(palmtop_answer_options_init(&o, sizeof o));
    o.on_piece = in_between;
    o.piece_user = &heard;
    o.max_new_tokens = 4;
    OK(palmtop_answer(session, features, PROMPT, 1, &o, NULL));
    CHECK(heard > 1);
    heard = 0;
    OK(palmtop_answer_requests(session, &request, 1, &o, NULL));
    CHECK(heard > 1);
    o.on_piece = stop_here;
    o.ignore_end = 1;
    OK(palmtop_answer(session, features, PROMPT, 1, &o, &r));
    OK(palmtop_result_get_answer(r, 0, &answer));
    CHECK(answer.stop == PALMTOP_STOP_CALLBACK && answer.token_count == 1);
    OK(palmtop_result_free(r));
}

static int32_t cancel_here(void *user, const palmtop_piece *piece) {
    (void)user;
    if (piece->token >= 0) OK(palmtop_session_cancel(session));
    return 0;
}

static void cancelled(void) {
    palmtop_answer_options o;
    palmtop_answer_info answer = {0};
    palmtop_pixels pixels;
    palmtop_request request = asking(&features);
    palmtop_result r = {0};
    answer.size = sizeof answer;
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    OK(palmtop_answer_options_init(&o, sizeof o));
    o.on_piece = cancel_here;
    o.ignore_end = 1;
    WANT(PALMTOP_CANCELLED, palmtop_answer(session, features, PROMPT, 1, &o, &r));
    OK(palmtop_result_get_answer(r, 0, &answer));
    CHECK(answer.stop == PALMTOP_STOP_CANCELLED && answer.token_count == 1);
    OK(palmtop_result_free(r));
    WANT(PALMTOP_CANCELLED, palmtop_answer(session, features, PROMPT, 1, &o, NULL));
    WANT(PALMTOP_CANCELLED, palmtop_answer_requests(session, &request, 1, &o, &r));
    CHECK(r.id == 0);
    WANT(PALMTOP_CANCELLED, palmtop_encode_pixels(session, features, &pixels, NULL));
    OK(palmtop_session_reset_cancel(session));
    OK(palmtop_encode_pixels(session, features, &pixels, NULL));
}

static void hear(void *user, int32_t level, const char *message) {
    int *heard = user;
    CHECK(level >= PALMTOP_LOG_ERROR && level <= PALMTOP_LOG_DEBUG && strlen(message) > 0);
    WANT(PALMTOP_BUSY, palmtop_set_log(PALMTOP_LOG_OFF, NULL, NULL));
    /* Threads that start together are heard together. */
    __atomic_add_fetch(heard, 1, __ATOMIC_SEQ_CST);
}

static void started(void *user, uint32_t index) {
    uint32_t *sum = user;
    __atomic_add_fetch(sum, index, __ATOMIC_SEQ_CST);
}

static void threads_and_log(void) {
    static const uint32_t nowhere[] = {1000};
    palmtop_session_options o;
    palmtop_session s;
    uint32_t sum = 0;
    int heard = 0;
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_set_log(-1, hear, &heard));
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_set_log(5, NULL, NULL));
    OK(palmtop_set_log(PALMTOP_LOG_WARNING, hear, &heard));
    OK(palmtop_session_options_init(&o, sizeof o));
    o.threads = 4;
    o.on_thread_start = started;
    o.thread_user = &sum;
    /* The least there is: nobody is refused it, whatever niceness the tests themselves run at. */
    o.nice = 19;
    /* What cannot be had is said, and the session made. */
    o.cores = nowhere;
    o.core_count = 1;
    OK(palmtop_session_new(model, &o, &s));
    CHECK(sum == 1 + 2 + 3);
    CHECK(heard == 3);
    OK(palmtop_answer(s, features, PROMPT, 1, NULL, NULL));
    OK(palmtop_session_free(s));
    OK(palmtop_set_log(PALMTOP_LOG_OFF, NULL, NULL));
}

static uint8_t *contents(const char *path, size_t *bytes, size_t align) {
    FILE *file = fopen(path, "rb");
    uint8_t *data;
    long end;
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    end = ftell(file);
    rewind(file);
    data = aligned_alloc(align, ((size_t)end + align) / align * align);
    CHECK(data != NULL);
    *bytes = fread(data, 1, (size_t)end, file);
    CHECK(*bytes == (size_t)end);
    fclose(file);
    return data;
}

static void released(void *user) {
    uint8_t **memory = user;
    free(*memory);
    *memory = NULL;
}

/* Memory is given back with the last object that needs it. */
static void from_memory(const char *path) {
    size_t bytes;
    uint8_t *memory = contents(path, &bytes, 64);
    palmtop_model m;
    palmtop_session s;
    OK(palmtop_model_open_memory(memory, bytes, released, &memory, &m));
    OK(palmtop_model_verify(m));
    OK(palmtop_session_new(m, NULL, &s));
    OK(palmtop_model_free(m));
    CHECK(memory != NULL);
    OK(palmtop_answer(s, features, PROMPT, 1, NULL, NULL));
    OK(palmtop_session_free(s));
    CHECK(memory == NULL);
}

int main(int argc, char **argv) {
    /* A box and a mask, whatever the model thinks. */
    static const char *const segment[] = {
        "<loc0256><loc0000><loc0768><loc0512>"
        "<seg000><seg017><seg034><seg051><seg068><seg085><seg102><seg119>"
        "<seg008><seg025><seg042><seg059><seg076><seg093><seg110><seg127> cat"};
    palmtop_answer_options options;
    palmtop_pixels pixels;
    uint8_t *file;
    size_t file_bytes;
    CHECK(argc == 4);
    frame = slope(64, 48, &frame_bytes);
    file = contents(argv[2], &file_bytes, 16);

    CHECK(palmtop_abi_version() == PALMTOP_ABI_VERSION && strlen(palmtop_version()) > 0);
    CHECK(palmtop_last_error()[0] == 0 && strlen(palmtop_status_name(12345)) > 0);
    CHECK(palmtop_clock_ns() > 0);
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_session_new(model, NULL, &session));
    OK(palmtop_features_new(model, &features));
    OK(palmtop_grammar_choices(model, segment, 1, &grammar));
    OK(palmtop_watch_new(model, QUESTIONS, NULL, &watch));
    OK(palmtop_prefix_new(model, NULL, &prefix));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 64, 48, frame, frame_bytes));
    OK(palmtop_encode_pixels(session, features, &pixels, NULL));
    OK(palmtop_answer_options_init(&options, sizeof options));
    options.grammar = grammar;
    OK(palmtop_answer(session, features, PROMPT, 1, &options, &result));

    fill_bad();
    handles();
    structs();
    models(argv[1], argv[3]);
    limits();
    results();
    pictures(file, file_bytes);
    WANT(PALMTOP_INVALID_ARGUMENT, palmtop_answer(session, features, PROMPT, SIZE_MAX / 8, NULL, NULL));
    OK(palmtop_encode_file(session, features, file, file_bytes, NULL));
    OK(palmtop_encode_pixels(session, features, &pixels, NULL));
    questions();
    requests();
    prefixes();
    prompts();
    busy();
    cancelled();
    threads_and_log();
    watches();
    busy_watch();
    from_memory(argv[1]);

    /* Objects may be freed in any order. */
    OK(palmtop_model_free(model));
    OK(palmtop_grammar_free(grammar));
    OK(palmtop_answer(session, features, PROMPT, 1, NULL, NULL));
    OK(palmtop_session_free(session));
    OK(palmtop_watch_end(watch));
    OK(palmtop_watch_free(watch));
    results();
    OK(palmtop_result_free(result));
    OK(palmtop_features_free(features));
    OK(palmtop_prefix_free(prefix));
    free(frame);
    free(file);
    puts("ok");
    return 0;
}
