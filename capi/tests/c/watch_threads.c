/* Many watches on one model, one that all fight for, and one that is freed while it is used; buttons pressed at any time.
 * Arguments: a model, and rounds. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>
#include <sched.h>

#define THREADS 3
#define FRAMES 2

static const char QUESTIONS[] = "[[question]]\nname = \"what\"\nprompt = \"caption en\"\nmax_new_tokens = 5\n";
static const char *const PROMPTS[] = {"caption en", "answer en what?"};
static palmtop_model model;
static palmtop_watch shared, doomed;
static palmtop_pixels pixels;
static char expected[512];
static unsigned rounds;
static int over;
static unsigned counts[3]; /* ok, cancelled, busy */

static uint64_t next(uint64_t *random) {
    *random = *random * 6364136223846793005ull + 1442695040888963407ull;
    return *random >> 33;
}

static void count(palmtop_status status) {
    CHECK(status == PALMTOP_OK || status == PALMTOP_CANCELLED || status == PALMTOP_BUSY);
    __atomic_add_fetch(&counts[status == PALMTOP_OK ? 0 : status == PALMTOP_CANCELLED ? 1 : 2], 1, __ATOMIC_SEQ_CST);
}

static palmtop_watch new_watch(void) {
    palmtop_watch_options options;
    palmtop_watch watch;
    OK(palmtop_watch_options_init(&options, sizeof options));
    options.all_answers = 1;
    OK(palmtop_watch_new(model, QUESTIONS, &options, &watch));
    return watch;
}

/* Has a frame looked at, and puts the newest answer into `text`. Nobody else uses the watch. */
static void look(palmtop_watch watch, char *text, size_t bytes) {
    palmtop_watch_report report = {0};
    palmtop_record record = {0};
    size_t taken = 0;
    report.size = sizeof report;
    record.size = sizeof record;
    OK(palmtop_watch_command(watch, "ask"));
    OK(palmtop_watch_frame(watch, 0, &pixels, 0, &report));
    CHECK(report.answers == 1 && report.records >= 1);
    while (palmtop_watch_next(watch, &record) == PALMTOP_OK) {
        CHECK(record.kind == PALMTOP_RECORD_ANSWER && record.text_length < bytes);
        memcpy(text, record.text, record.text_length + 1);
        taken++;
    }
    CHECK(taken == report.records);
}

/* Its own watch, freed and made again; nobody disturbs it. */
static void *alone(void *user) {
    char text[sizeof expected];
    unsigned round, frame;
    (void)user;
    for (round = 0; round < rounds; round++) {
        palmtop_watch watch = new_watch();
        for (frame = 0; frame < FRAMES; frame++) {
            look(watch, text, sizeof text);
            CHECK(strcmp(text, expected) == 0);
        }
        OK(palmtop_watch_end(watch));
        OK(palmtop_watch_free(watch));
    }
    return NULL;
}

/* All of these want the same watch. What a record points to is not theirs to read, since others take the next one. */
static void *together(void *user) {
    uint64_t random = (uint64_t)(uintptr_t)user;
    palmtop_watch_counts done = {0};
    palmtop_record record = {0};
    unsigned round;
    done.size = sizeof done;
    record.size = sizeof record;
    for (round = 0; round < rounds * 20; round++) {
        palmtop_status status;
        switch (next(&random) % 8) {
        case 0: count(palmtop_watch_set_prompt(shared, "what", PROMPTS[next(&random) % 2])); break;
        case 1: count(palmtop_watch_get_counts(shared, &done)); break;
        case 2: count(palmtop_watch_end(shared)); break;
        case 3:
            status = palmtop_watch_next(shared, &record);
            if (status == PALMTOP_NOT_FOUND) break;
            CHECK(status != PALMTOP_OK || record.kind == PALMTOP_RECORD_ANSWER);
            count(status);
            break;
        case 4: count(palmtop_watch_command(shared, "ask")); break;
        default: count(palmtop_watch_frame(shared, 0, &pixels, 0, NULL)); break;
        }
        sched_yield();
    }
    return NULL;
}

/* Uses a watch until it is gone. */
static void *to_the_end(void *user) {
    palmtop_status status;
    (void)user;
    do {
        status = palmtop_watch_frame(doomed, 0, &pixels, 0, NULL);
        CHECK(status == PALMTOP_OK || status == PALMTOP_BUSY || status == PALMTOP_INVALID_HANDLE);
        sched_yield();
    } while (status != PALMTOP_INVALID_HANDLE);
    return NULL;
}

static void *presses_buttons(void *user) {
    (void)user;
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        unsigned pause;
        OK(palmtop_watch_cancel(shared));
        sched_yield();
        OK(palmtop_watch_reset_cancel(shared));
        for (pause = 0; pause < 50; pause++) sched_yield();
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[2 * THREADS + 2], buttons;
    char text[sizeof expected];
    palmtop_status status;
    uint8_t *frame;
    size_t bytes, i;
    CHECK(argc == 3);
    rounds = (unsigned)atoi(argv[2]);
    frame = slope(160, 120, &bytes);
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 160, 120, frame, bytes));
    shared = new_watch();
    doomed = new_watch();
    look(shared, expected, sizeof expected);
    CHECK(expected[0] != 0);

    for (i = 0; i < 2 * THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, i % 2 ? alone : together, (void *)(uintptr_t)i) == 0);
    for (; i < 2 * THREADS + 2; i++) CHECK(pthread_create(&threads[i], NULL, to_the_end, NULL) == 0);
    CHECK(pthread_create(&buttons, NULL, presses_buttons, NULL) == 0);
    for (i = 0; i < 2 * THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    while ((status = palmtop_watch_free(doomed)) == PALMTOP_BUSY) sched_yield();
    CHECK(status == PALMTOP_OK);
    for (; i < 2 * THREADS + 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(buttons, NULL) == 0);

    /* After the storm it works. */
    OK(palmtop_watch_reset_cancel(shared));
    OK(palmtop_watch_set_prompt(shared, "what", PROMPTS[0]));
    look(shared, text, sizeof text);
    CHECK(strcmp(text, expected) == 0);
    OK(palmtop_watch_free(shared));
    OK(palmtop_model_free(model));
    free(frame);
    printf("ok: %u done, %u cancelled, %u busy\n", counts[0], counts[1], counts[2]);
    return 0;
}
