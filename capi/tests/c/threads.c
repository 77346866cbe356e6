/* Many sessions on one model, and one that all fight for; buttons pressed at any time. Every answer that comes is the right one.
 * Arguments: a model, and rounds. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define THREADS 4
#define TOKENS 6

static const char *const PROMPTS[] = {"caption en", "answer en what?"};
static palmtop_model model;
static palmtop_session shared_session;
static palmtop_features shared_features;
static palmtop_pixels pixels;
static uint32_t expected[TOKENS];
static unsigned rounds;
static int over;
static unsigned counts[4]; /* ok, cancelled, deadline, busy */

static void count(palmtop_status status, uint64_t deadline_ns) {
    int which = status == PALMTOP_OK ? 0 : status == PALMTOP_CANCELLED ? 1 : status == PALMTOP_DEADLINE ? 2 : 3;
    CHECK(which < 3 || status == PALMTOP_BUSY);
    CHECK(status != PALMTOP_DEADLINE || deadline_ns != 0);
    __atomic_add_fetch(&counts[which], 1, __ATOMIC_SEQ_CST);
}

static uint64_t next(uint64_t *random) {
    return *random = *random * 6364136223846793005ull + 1442695040888963407ull;
}

/* Up to 2 ms, and often not at all. */
static void wait_a_moment(uint64_t *random) {
    struct timespec wait = {0, 0};
    wait.tv_nsec = (long)((next(random) >> 33) % 2000000);
    if (next(random) >> 63) nanosleep(&wait, NULL);
    else sched_yield();
}

static void check_tokens(palmtop_result result, size_t wanted) {
    palmtop_answer_info answer = {0};
    answer.size = sizeof answer;
    OK(palmtop_result_get_answer(result, 0, &answer));
    CHECK(answer.token_count == wanted || wanted == 0);
    CHECK(memcmp(answer.tokens, expected, answer.token_count * sizeof *expected) == 0);
}

static palmtop_answer_options short_answers(void) {
    palmtop_answer_options options;
    OK(palmtop_answer_options_init(&options, sizeof options));
    options.max_new_tokens = TOKENS;
    options.ignore_end = 1;
    return options;
}

/* Its own session and features, freed and made again; nobody disturbs it. */
static void *alone(void *user) {
    palmtop_answer_options options = short_answers();
    unsigned round;
    (void)user;
    for (round = 0; round < rounds; round++) {
        palmtop_session session;
        palmtop_features features;
        palmtop_result result;
        OK(palmtop_session_new(model, NULL, &session));
        OK(palmtop_features_new(model, &features));
        OK(palmtop_encode_pixels(session, features, &pixels, NULL));
        OK(palmtop_answer(session, features, PROMPTS, 1, &options, &result));
        check_tokens(result, TOKENS);
        OK(palmtop_result_free(result));
        OK(palmtop_session_free(session));
        OK(palmtop_features_free(features));
    }
    return NULL;
}

/* All of these want the same session and the same features. */
static void *together(void *user) {
    palmtop_answer_options options = short_answers();
    palmtop_encode_options looking;
    uint64_t random = (uint64_t)(uintptr_t)user;
    unsigned round;
    OK(palmtop_encode_options_init(&looking, sizeof looking));
    for (round = 0; round < rounds * 20; round++) {
        palmtop_result result = {0};
        palmtop_status status;
        wait_a_moment(&random);
        next(&random);
        looking.deadline_ns = options.deadline_ns = 0;
        if (random >> 61 == 0) looking.deadline_ns = options.deadline_ns = palmtop_clock_ns() + (random >> 20) % 2000000;
        if (random >> 63 == 0) {
            count(palmtop_encode_pixels(shared_session, shared_features, &pixels, &looking), looking.deadline_ns);
        } else {
            status = palmtop_answer(shared_session, shared_features, PROMPTS, 1, &options, &result);
            /* A cancelled encoding leaves features that hold nothing. */
            if (status == PALMTOP_INVALID_ARGUMENT) CHECK(strstr(palmtop_last_error(), "no picture") != NULL);
            else count(status, options.deadline_ns);
            if (result.id != 0) {
                check_tokens(result, status == PALMTOP_OK ? TOKENS : 0);
                OK(palmtop_result_free(result));
            }
        }
    }
    return NULL;
}

/* Sometimes in quick succession, sometimes with time for an answer in between. */
static void *presses_buttons(void *user) {
    uint64_t random = 1;
    (void)user;
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        OK(palmtop_session_cancel(shared_session));
        sched_yield();
        OK(palmtop_session_reset_cancel(shared_session));
        wait_a_moment(&random);
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[2 * THREADS + 1];
    palmtop_answer_options options = short_answers();
    palmtop_answer_info answer = {0};
    palmtop_result result;
    uint8_t *frame;
    size_t bytes, i;
    CHECK(argc == 3);
    rounds = (unsigned)atoi(argv[2]);
    answer.size = sizeof answer;
    frame = slope(160, 120, &bytes);
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 160, 120, frame, bytes));
    OK(palmtop_session_new(model, NULL, &shared_session));
    OK(palmtop_features_new(model, &shared_features));
    OK(palmtop_encode_pixels(shared_session, shared_features, &pixels, NULL));
    OK(palmtop_answer(shared_session, shared_features, PROMPTS, 1, &options, &result));
    OK(palmtop_result_get_answer(result, 0, &answer));
    CHECK(answer.token_count == TOKENS);
    memcpy(expected, answer.tokens, sizeof expected);
    OK(palmtop_result_free(result));

    for (i = 0; i < 2 * THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, i % 2 ? alone : together, (void *)(uintptr_t)i) == 0);
    CHECK(pthread_create(&threads[i], NULL, presses_buttons, NULL) == 0);
    for (i = 0; i < 2 * THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(threads[2 * THREADS], NULL) == 0);

    /* After the storm it works. */
    OK(palmtop_session_reset_cancel(shared_session));
    OK(palmtop_encode_pixels(shared_session, shared_features, &pixels, NULL));
    OK(palmtop_answer(shared_session, shared_features, PROMPTS, 1, &options, &result));
    check_tokens(result, TOKENS);
    OK(palmtop_result_free(result));
    OK(palmtop_session_free(shared_session));
    OK(palmtop_features_free(shared_features));
    OK(palmtop_model_free(model));
    free(frame);
    printf("ok: %u done, %u cancelled, %u late, %u busy\n", counts[0], counts[1], counts[2], counts[3]);
    return 0;
}
