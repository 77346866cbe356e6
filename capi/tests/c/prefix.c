/* Writes prefixes so that they can be compared to the bit: shapes to the output, arrays one behind the other to a file.
 * Arguments: a model, a raw file of two RGB frames, width, height, and the file for the arrays. */
#include "check.h"

static void write_arrays(palmtop_prefix prefix, FILE *out) {
    palmtop_prefix_info rows = {0};
    size_t numbers;
    rows.size = sizeof rows;
    OK(palmtop_prefix_get_info(prefix, &rows));
    numbers = (size_t)rows.layers * rows.rows * rows.kv_heads * rows.head_dim;
    printf("%u %u %u %u %u %u\n", rows.layers, rows.rows, rows.kv_heads, rows.head_dim, rows.width, rows.next_position);
    fwrite(rows.keys, sizeof *rows.keys, numbers, out);
    fwrite(rows.values, sizeof *rows.values, numbers, out);
    if (rows.hidden != NULL) fwrite(rows.hidden, sizeof *rows.hidden, (size_t)rows.rows * rows.width, out);
    fwrite(rows.mask, 1, rows.rows, out);
    fwrite(rows.positions, sizeof *rows.positions, rows.rows, out);
}

int main(int argc, char **argv) {
    static const uint32_t tokens[] = {2, 7, 9};
    static uint8_t data[2][1 << 16];
    palmtop_model model;
    palmtop_session session;
    palmtop_features features[2], cameras[3] = {{0}, {0}, {0}};
    palmtop_prefix prefix, keys_only;
    palmtop_session_options limits;
    palmtop_prefix_options room;
    palmtop_prefix_request request = {0};
    palmtop_timings timings = {0};
    palmtop_pixels pixels;
    uint32_t width, height;
    uint64_t bytes;
    size_t i;
    FILE *file, *out;
    CHECK(argc == 6);
    width = (uint32_t)atoi(argv[3]);
    height = (uint32_t)atoi(argv[4]);
    OK(palmtop_session_options_init(&limits, sizeof limits));
    limits.pictures = 3;
    limits.new_tokens = 0;
    /* As fine-tunes on videos want it. */
    limits.filter = PALMTOP_FILTER_BILINEAR_ALIASED;
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_session_new(model, &limits, &session));
    file = fopen(argv[2], "rb");
    CHECK(file != NULL);
    for (i = 0; i < 2; i++) {
        size_t of_frame = (size_t)3 * width * height;
        CHECK(of_frame <= sizeof data[i] && fread(data[i], 1, of_frame, file) == of_frame);
        OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_RGB, width, height, data[i], of_frame));
        OK(palmtop_features_new(model, &features[i]));
        OK(palmtop_encode_pixels(session, features[i], &pixels, NULL));
    }
    fclose(file);
    OK(palmtop_prefix_options_init(&room, sizeof room));
    room.pictures = 3;
    room.tokens = 40;
    OK(palmtop_prefix_plan(model, &room, &bytes));
    printf("%llu\n", (unsigned long long)bytes);
    OK(palmtop_prefix_new(model, &room, &prefix));
    room.hidden = 0;
    OK(palmtop_prefix_new(model, &room, &keys_only));
    out = fopen(argv[5], "wb");
    CHECK(out != NULL);

    /* Two cameras, and one that is not there in their midst. */
    request.size = sizeof request;
    request.pictures = cameras;
    request.picture_count = 3;
    request.text = "fold the shirt";
    cameras[0] = features[0];
    cameras[2] = features[1];
    OK(palmtop_compute_prefix(session, prefix, &request));
    write_arrays(prefix, out);
    request.open = 1;
    OK(palmtop_compute_prefix(session, keys_only, &request));
    write_arrays(keys_only, out);
    /* Into the same memory: tokens, of which nothing is known, behind one camera. */
    request.picture_count = 1;
    request.text = NULL;
    request.tokens = tokens;
    request.token_count = 3;
    OK(palmtop_compute_prefix(session, prefix, &request));
    write_arrays(prefix, out);
    CHECK(fclose(out) == 0);
    timings.size = sizeof timings;
    OK(palmtop_session_get_timings(session, &timings));
    CHECK(timings.prefix_ns > 0);

    OK(palmtop_prefix_free(keys_only));
    OK(palmtop_prefix_free(prefix));
    for (i = 0; i < 2; i++) OK(palmtop_features_free(features[i]));
    OK(palmtop_session_free(session));
    OK(palmtop_model_free(model));
    puts("ok");
    return 0;
}
