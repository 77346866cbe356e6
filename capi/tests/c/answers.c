/* Prints answers so that they can be compared to the bit: for each token its number and the bits of its probability; then the
 * text. Arguments: a model, a raw file of pixels, format, width, height, stride, rotation, and prompts. Strides of chroma are as
 * those of luma. */
#include "check.h"

int main(int argc, char **argv) {
    palmtop_model model;
    palmtop_session session;
    palmtop_features features;
    palmtop_session_options limits;
    palmtop_pixels pixels;
    palmtop_result result;
    palmtop_answer_info answer = {0};
    size_t bytes, stride, luma, i, k;
    static uint8_t data[1 << 21];
    FILE *file;
    CHECK(argc >= 9);
    file = fopen(argv[2], "rb");
    CHECK(file != NULL);
    bytes = fread(data, 1, sizeof data, file);
    fclose(file);
    answer.size = sizeof answer;
    OK(palmtop_pixels_init(&pixels, sizeof pixels, atoi(argv[3]), 0, 0, NULL, 0));
    pixels.width = (uint32_t)atoi(argv[4]);
    pixels.height = (uint32_t)atoi(argv[5]);
    pixels.rotation = (uint32_t)atoi(argv[7]);
    stride = (size_t)atoi(argv[6]);
    luma = stride * pixels.height;
    for (i = 0; i < 3; i++) {
        pixels.planes[i].data = data + (i ? luma : 0);
        pixels.planes[i].bytes = bytes - (i ? luma : 0);
        pixels.planes[i].stride = stride;
    }
    OK(palmtop_session_options_init(&limits, sizeof limits));
    limits.batch = (uint32_t)argc - 8;
    limits.new_tokens = 12;
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_session_new(model, &limits, &session));
    OK(palmtop_features_new(model, &features));
    OK(palmtop_encode_pixels(session, features, &pixels, NULL));
    OK(palmtop_answer(session, features, (const char *const *)argv + 8, (size_t)argc - 8, NULL, &result));
    for (i = 0; i < palmtop_result_count(result); i++) {
        OK(palmtop_result_get_answer(result, i, &answer));
        for (k = 0; k < answer.token_count; k++) {
            uint32_t bits;
            memcpy(&bits, &answer.probabilities[k], sizeof bits);
            printf("%u:%08x ", answer.tokens[k], bits);
        }
        printf("%s\n", answer.text);
    }
    OK(palmtop_result_free(result));
    OK(palmtop_features_free(features));
    OK(palmtop_session_free(session));
    OK(palmtop_model_free(model));
    return 0;
}
