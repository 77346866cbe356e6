/* Asks about the last frames of a film or a camera, again with every new one:
 *
 *     film MODEL FRAMES WIDTH HEIGHT COUNT [PROMPT]
 *
 * FRAMES is a file with one RGB frame after the other, or - for a pipe with such frames, as from
 *
 *     ffmpeg -i film.mp4 -vf fps=2,scale=224:224 -f rawvideo -pix_fmt rgb24 - | film model.palm - 224 224 8
 *
 * A frame is encoded once, when it comes, and its features are kept for as long as it is one of the last COUNT. So a new
 * frame costs one run of the image encoder, whatever COUNT is. The last answer is the draft of the next one: as far as it
 * still holds, several tokens are checked in one step. Neither changes a bit of the answers.
 *
 * Build it with: cc film.c $(pkg-config --cflags --libs palmtop) -o film */
#include <palmtop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last frames, from the oldest to the newest. */
struct window {
    palmtop_features *ring;   /* frame number n is at n % count */
    palmtop_features *in_order;
    size_t count;             /* most frames */
    size_t known;             /* frames that have come, COUNT at most */
};

/* Encodes a frame into the place of the oldest one. */
static palmtop_status push(struct window *window, palmtop_session session, const palmtop_pixels *pixels, size_t frame) {
    palmtop_status status = palmtop_encode_pixels(session, window->ring[frame % window->count], pixels, NULL);
    size_t i;
    if (window->known < window->count) window->known++;
    for (i = 0; i < window->known; i++)
        window->in_order[i] = window->ring[(frame + 1 - window->known + i) % window->count];
    return status;
}

int main(int argc, char **argv) {
    palmtop_model model = {0};
    palmtop_session session = {0};
    palmtop_result last = {0};
    palmtop_session_options limits;
    palmtop_request request = {0};
    palmtop_answer_info answer = {0};
    palmtop_pixels pixels;
    palmtop_status status;
    struct window window = {0};
    unsigned long tokens = 0, from_drafts = 0;
    size_t bytes, frame = 0, i;
    unsigned char *data;
    FILE *frames;
    uint32_t width, height;

    if (argc < 6 || argc > 7) {
        fprintf(stderr, "usage: %s MODEL FRAMES WIDTH HEIGHT COUNT [PROMPT]\n", argv[0]);
        return 2;
    }
    width = (uint32_t)strtoul(argv[3], NULL, 10);
    height = (uint32_t)strtoul(argv[4], NULL, 10);
    window.count = strtoul(argv[5], NULL, 10);
    bytes = (size_t)3 * width * height;
    frames = strcmp(argv[2], "-") == 0 ? stdin : fopen(argv[2], "rb");
    data = malloc(bytes);
    window.ring = calloc(window.count, sizeof *window.ring);
    window.in_order = calloc(window.count, sizeof *window.in_order);
    if (frames == NULL || data == NULL || window.ring == NULL || window.in_order == NULL || window.count == 0) {
        fprintf(stderr, "cannot read %u x %u pixels from %s, or keep %s of them\n", width, height, argv[2], argv[5]);
        if (frames != NULL) fclose(frames);
        free(data);
        free(window.ring);
        free(window.in_order);
        return 1;
    }

    palmtop_session_options_init(&limits, sizeof limits);
    limits.pictures = (uint32_t)window.count;
    limits.draft_tokens = 8;
    limits.new_tokens = 64;
    answer.size = sizeof answer;
    request.size = sizeof request;
    request.prompt = argc == 7 ? argv[6] : "caption en";
    request.pictures = window.in_order;

    status = palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_RGB, width, height, data, bytes);
    if (status == PALMTOP_OK) status = palmtop_model_open(argv[1], &model);
    if (status == PALMTOP_OK) status = palmtop_session_new(model, &limits, &session);
    for (i = 0; i < window.count && status == PALMTOP_OK; i++) status = palmtop_features_new(model, &window.ring[i]);

    while (status == PALMTOP_OK && fread(data, 1, bytes, frames) == bytes) {
        palmtop_result result = {0};
        status = push(&window, session, &pixels, frame);
        request.picture_count = window.known;
        if (status == PALMTOP_OK) status = palmtop_answer_requests(session, &request, 1, NULL, &result);
        if (status == PALMTOP_OK) status = palmtop_result_get_answer(result, 0, &answer);
        if (status == PALMTOP_OK) {
            printf("frames %lu to %lu: ", (unsigned long)(frame + 1 - window.known), (unsigned long)frame);
            fwrite(answer.text, 1, answer.text_length, stdout);
            putchar('\n');
            /* The tokens are part of the result, which therefore stays until the next one is there. */
            request.draft = answer.tokens;
            request.draft_count = answer.token_count;
            tokens += answer.token_count;
            from_drafts += answer.accepted_draft_tokens;
            frame++;
        }
        if (last.id != 0) palmtop_result_free(last);
        last = result;
    }
    if (status != PALMTOP_OK) fprintf(stderr, "%s\n", palmtop_last_error());
    printf("%lu frames, %lu tokens, %lu of them from drafts\n", (unsigned long)frame, tokens, from_drafts);

    if (last.id != 0) palmtop_result_free(last);
    for (i = 0; i < window.count; i++) palmtop_features_free(window.ring[i]);
    palmtop_session_free(session);
    palmtop_model_free(model);
    free(window.ring);
    free(window.in_order);
    free(data);
    fclose(frames);
    return status == PALMTOP_OK ? 0 : 1;
}
