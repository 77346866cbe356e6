/* Prints answers to requests with several pictures so that they can be compared to the bit: for each token its number and the
 * bits of its probability; then the text. Before them the bytes of the session; behind them how many tokens each draft had right.
 * Arguments: a model, a raw file of RGB frames, width and height. */
#include "check.h"

#define FRAMES 3
#define REQUESTS 3

static void print(palmtop_result result, size_t index) {
    palmtop_answer_info answer = {0};
    size_t i;
    answer.size = sizeof answer;
    OK(palmtop_result_get_answer(result, index, &answer));
    for (i = 0; i < answer.token_count; i++) {
        uint32_t bits;
        memcpy(&bits, &answer.probabilities[i], sizeof bits);
        printf("%u:%08x ", answer.tokens[i], bits);
    }
    printf("%s\n", answer.text);
}

int main(int argc, char **argv) {
    palmtop_model model;
    palmtop_session session;
    palmtop_features features[FRAMES], first[FRAMES], second[2], third[2];
    palmtop_session_options limits;
    palmtop_request requests[REQUESTS] = {{0}, {0}, {0}};
    palmtop_answer_info answers[REQUESTS] = {{0}, {0}, {0}};
    palmtop_plan plan = {0};
    palmtop_result plain, drafted, single;
    palmtop_pixels pixels;
    static uint8_t data[FRAMES][1 << 16];
    static const uint32_t wrong[] = {1, 2, 3, UINT32_MAX};
    static const char *const prompt[] = {"detect cat"};
    uint32_t width, height;
    size_t i;
    FILE *file;
    CHECK(argc == 5);
    width = (uint32_t)atoi(argv[3]);
    height = (uint32_t)atoi(argv[4]);
    plan.size = sizeof plan;
    OK(palmtop_session_options_init(&limits, sizeof limits));
    CHECK(limits.pictures == 1 && limits.draft_tokens == 0);
    limits.batch = REQUESTS;
    limits.pictures = FRAMES;
    limits.draft_tokens = 4;
    limits.new_tokens = 12;
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_model_plan(model, &limits, &plan));
    printf("%llu\n", (unsigned long long)plan.session_bytes);
    OK(palmtop_session_new(model, &limits, &session));
    file = fopen(argv[2], "rb");
    CHECK(file != NULL);
    for (i = 0; i < FRAMES; i++) {
        size_t bytes = (size_t)3 * width * height;
        CHECK(bytes <= sizeof data[i] && fread(data[i], 1, bytes, file) == bytes);
        OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_RGB, width, height, data[i], bytes));
        /* The last one is turned, and so has other sides. */
        pixels.rotation = i == FRAMES - 1 ? 90 : 0;
        OK(palmtop_features_new(model, &features[i]));
        OK(palmtop_encode_pixels(session, features[i], &pixels, NULL));
    }
    fclose(file);

    for (i = 0; i < FRAMES; i++) first[i] = features[i];
    second[0] = features[2];
    second[1] = features[0];
    third[0] = third[1] = features[1];
    for (i = 0; i < REQUESTS; i++) requests[i].size = sizeof requests[i];
    requests[0].prompt = "caption en";
    requests[0].pictures = first;
    requests[0].picture_count = FRAMES;
    requests[1].prompt = prompt[0];
    requests[1].pictures = second;
    requests[1].picture_count = 2;
    requests[2].prompt = "caption en";
    requests[2].pictures = third;
    requests[2].picture_count = 2;
    OK(palmtop_answer_requests(session, requests, REQUESTS, NULL, &plain));
    CHECK(palmtop_result_count(plain) == REQUESTS);
    for (i = 0; i < REQUESTS; i++) print(plain, i);

    /* The same again with drafts: all of an answer, nothing of one, the beginning of one. */
    for (i = 0; i < REQUESTS; i++) {
        answers[i].size = sizeof answers[i];
        OK(palmtop_result_get_answer(plain, i, &answers[i]));
        CHECK(answers[i].accepted_draft_tokens == 0 && answers[i].token_count > 3);
    }
    requests[0].draft = answers[0].tokens;
    requests[0].draft_count = answers[0].token_count;
    requests[1].draft = wrong;
    requests[1].draft_count = 4;
    requests[2].draft = answers[2].tokens;
    requests[2].draft_count = 3;
    OK(palmtop_answer_requests(session, requests, REQUESTS, NULL, &drafted));
    for (i = 0; i < REQUESTS; i++) {
        print(drafted, i);
        OK(palmtop_result_get_answer(drafted, i, &answers[i]));
    }
    for (i = 0; i < REQUESTS; i++) printf("%u\n", answers[i].accepted_draft_tokens);

    /* A question about one picture is a request with one. */
    OK(palmtop_answer(session, features[2], prompt, 1, NULL, &single));
    print(single, 0);
    OK(palmtop_result_free(single));
    requests[1].picture_count = 1;
    OK(palmtop_answer_requests(session, &requests[1], 1, NULL, &single));
    print(single, 0);

    OK(palmtop_result_free(single));
    OK(palmtop_result_free(drafted));
    OK(palmtop_result_free(plain));
    for (i = 0; i < FRAMES; i++) OK(palmtop_features_free(features[i]));
    OK(palmtop_session_free(session));
    OK(palmtop_model_free(model));
    puts("ok");
    return 0;
}
