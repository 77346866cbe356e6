/* A watch over frames of a recording: prints every record as JSON, and what the struct says of it must be the same.
 * Arguments: MODEL QUESTIONS FRAMES WIDTH HEIGHT MILLISECONDS_BETWEEN_FRAMES. Frames are RGB. */
#include "check.h"

static palmtop_watch watch;

/* True if `json` has `"key":"value"`; values here need no escapes. */
static int says(const char *json, const char *key, const char *value) {
    char part[512];
    CHECK((size_t)snprintf(part, sizeof part, "\"%s\":\"%s\"", key, value) < sizeof part);
    return strstr(json, part) != NULL;
}

static void print_records(void) {
    palmtop_record record = {0};
    palmtop_object object = {0};
    palmtop_mask mask = {0};
    const char *json, *again;
    size_t length, i;
    record.size = sizeof record;
    object.size = sizeof object;
    mask.size = sizeof mask;
    while (palmtop_watch_next(watch, &record) == PALMTOP_OK) {
        int event = record.kind == PALMTOP_RECORD_EVENT;
        OK(palmtop_watch_record_json(watch, &json, &length));
        CHECK(strlen(json) == length);
        CHECK(says(json, "record", event ? "event" : "answer"));
        CHECK(says(json, "camera", record.camera) && says(json, "question", record.question));
        CHECK(!event || (says(json, "rule", record.rule) && says(json, "id", record.id)));
        CHECK(!event || says(json, "phase", record.phase == PALMTOP_EVENT_BEGINS ? "begin" : "end"));
        CHECK(event || (record.rule[0] == 0 && record.id[0] == 0 && record.phase == 0 && record.label[0] == 0));
        CHECK(record.label[0] == 0 || says(json, "label", record.label));
        CHECK(strlen(record.text) == record.text_length);
        CHECK(record.phase == PALMTOP_EVENT_ENDS || record.lasted_ns == 0);
        CHECK(record.time_ns > 0 && record.unix_ns > 0);
        for (i = 0; i < record.object_count; i++) {
            OK(palmtop_watch_get_object(watch, i, &object));
            CHECK(strlen(object.label) == object.label_length && says(json, "label", object.label));
            CHECK(object.x_min <= object.x_max && object.y_min <= object.y_max && object.score >= 0 && object.score <= 1);
            if (object.has_mask) {
                OK(palmtop_watch_get_mask(watch, i, &mask, NULL, 0));
                CHECK(mask.width > 0 && mask.height > 0);
            } else {
                WANT(PALMTOP_NOT_FOUND, palmtop_watch_get_mask(watch, i, &mask, NULL, 0));
            }
        }
        WANT(PALMTOP_NOT_FOUND, palmtop_watch_get_object(watch, i, &object));
        OK(palmtop_watch_record_json(watch, &again, &length));
        CHECK(again == json);
        printf("%s\n", json);
    }
    WANT(PALMTOP_NOT_FOUND, palmtop_watch_next(watch, &record));
}

int main(int argc, char **argv) {
    palmtop_model model;
    palmtop_watch_options options;
    palmtop_watch_report report = {0};
    palmtop_watch_counts counts = {0};
    palmtop_pixels pixels;
    uint32_t width, height;
    uint64_t start = palmtop_clock_ns(), frame, answers = 0, encoded = 0;
    uint8_t *data;
    size_t bytes;
    FILE *frames;
    CHECK(argc == 7);
    width = (uint32_t)atoi(argv[4]);
    height = (uint32_t)atoi(argv[5]);
    bytes = (size_t)3 * width * height;
    data = malloc(bytes);
    frames = fopen(argv[3], "rb");
    CHECK(data != NULL && frames != NULL);
    report.size = sizeof report;
    counts.size = sizeof counts;
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_watch_options_init(&options, sizeof options));
    options.recording = 1;
    OK(palmtop_watch_new(model, argv[2], &options, &watch));
    OK(palmtop_model_free(model));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_RGB, width, height, data, bytes));
    for (frame = 0; fread(data, 1, bytes, frames) == bytes; frame++) {
        uint64_t time = start + frame * (uint64_t)atoi(argv[6]) * 1000000u;
        OK(palmtop_watch_frame(watch, 0, &pixels, time, &report));
        CHECK(report.late == 0 && report.encoded <= 1);
        answers += report.answers;
        encoded += report.encoded;
        print_records();
    }
    OK(palmtop_watch_end(watch));
    print_records();
    OK(palmtop_watch_end(watch));
    print_records();
    OK(palmtop_watch_get_counts(watch, &counts));
    CHECK(counts.pictures == frame && counts.answers == answers && counts.encoded == encoded && counts.records_lost == 0);
    CHECK(counts.latency_p50_ns > 0 && counts.latency_p50_ns <= counts.latency_p95_ns);
    CHECK(counts.latency_p95_ns <= counts.latency_p99_ns && counts.latency_p99_ns <= counts.latency_max_ns);
    OK(palmtop_watch_free(watch));
    free(data);
    fclose(frames);
    return 0;
}
