/* Detects objects in the frames of a camera, until a time has passed or there are no more frames:
 *
 *     camera MODEL FRAMES WIDTH HEIGHT MILLISECONDS_A_FRAME MILLISECONDS_IN_ALL LABEL...
 *
 * FRAMES is a file or pipe with one NV12 frame after the other, as from
 *
 *     rpicam-vid -t 0 --codec yuv420 ...                        (that is I420: PALMTOP_YUV420)
 *     ffmpeg -f v4l2 -i /dev/video0 -f rawvideo -pix_fmt nv12 - ...
 *
 * The program assumes that the camera is rotated by 90 degrees. It drops a frame that misses its deadline. A second
 * thread plays the role of a stop button: it cancels the work, in the middle of a frame if necessary.
 *
 * Build it with: cc camera.c $(pkg-config --cflags --libs palmtop) -lpthread -o camera */
#define _POSIX_C_SOURCE 200809L
#include <palmtop.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MILLISECOND 1000000ull

/* The stop button: the session that it cancels, the time until then, and how the main thread ends it early. */
struct button {
    palmtop_session session;
    uint64_t wait_ms;
    pthread_mutex_t lock;
    pthread_cond_t left;
    int over;
};

static void *press_later(void *user) {
    struct button *button = user;
    struct timespec until;
    int waited = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(button->wait_ms / 1000);
    until.tv_nsec += (long)(button->wait_ms % 1000 * MILLISECOND);
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec += 1;
    }
    pthread_mutex_lock(&button->lock);
    while (!button->over && waited == 0) waited = pthread_cond_timedwait(&button->left, &button->lock, &until);
    pthread_mutex_unlock(&button->lock);
    palmtop_session_cancel(button->session);
    return NULL;
}

/* The objects found in a frame. */
static void print_objects(unsigned frame, palmtop_result result) {
    palmtop_object object = {0};
    size_t i;
    object.size = sizeof object;
    for (i = 0; palmtop_result_get_object(result, 0, i, &object) == PALMTOP_OK; i++)
        printf("frame %u: %s at %.0f, %.0f to %.0f, %.0f\n", frame, object.label, object.x_min, object.y_min, object.x_max,
               object.y_max);
}

int main(int argc, char **argv) {
    palmtop_model model = {0};
    palmtop_session session = {0};
    palmtop_features features = {0};
    palmtop_session_options limits;
    palmtop_pixels pixels;
    palmtop_encode_options looking;
    palmtop_answer_options answering;
    palmtop_status status;
    struct button button;
    pthread_t thread;
    unsigned frame, done = 0, late = 0;
    char prompt[512];
    const char *prompts[1];
    size_t length, frame_bytes;
    unsigned char *data;
    FILE *frames;
    uint32_t width, height;

    if (argc < 8) {
        fprintf(stderr, "usage: %s MODEL FRAMES WIDTH HEIGHT MS_A_FRAME MS_IN_ALL LABEL...\n", argv[0]);
        return 2;
    }
    width = (uint32_t)strtoul(argv[3], NULL, 10);
    height = (uint32_t)strtoul(argv[4], NULL, 10);
    frame_bytes = (size_t)width * height + 2 * ((size_t)(width + 1) / 2) * ((size_t)(height + 1) / 2);
    frames = fopen(argv[2], "rb");
    data = malloc(frame_bytes);
    if (frames == NULL || data == NULL) {
        fprintf(stderr, "cannot read frames of %u x %u from %s\n", width, height, argv[2]);
        if (frames != NULL) fclose(frames);
        free(data);
        return 1;
    }

    palmtop_session_options_init(&limits, sizeof limits);
    limits.image_side = width > height ? width : height;
    limits.new_tokens = 32;
    palmtop_encode_options_init(&looking, sizeof looking);
    palmtop_answer_options_init(&answering, sizeof answering);
    prompts[0] = prompt;

    status = palmtop_prompt(PALMTOP_DETECT, NULL, (const char *const *)argv + 7, (size_t)argc - 7, prompt, sizeof prompt,
                            &length);
    if (status == PALMTOP_OK)
        status = palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, width, height, data, frame_bytes);
    pixels.rotation = 90;
    if (status == PALMTOP_OK) status = palmtop_model_open(argv[1], &model);
    if (status == PALMTOP_OK) status = palmtop_session_new(model, &limits, &session);
    if (status == PALMTOP_OK) status = palmtop_features_new(model, &features);
    if (status != PALMTOP_OK) {
        fprintf(stderr, "%s\n", palmtop_last_error());
    } else {
        button.session = session;
        button.wait_ms = strtoull(argv[6], NULL, 10);
        button.over = 0;
        pthread_mutex_init(&button.lock, NULL);
        pthread_cond_init(&button.left, NULL);
        if (pthread_create(&thread, NULL, press_later, &button) != 0) abort();

        for (frame = 0; fread(data, 1, frame_bytes, frames) == frame_bytes; frame++) {
            palmtop_result result = {0};
            /* One deadline for looking and answering. */
            looking.deadline_ns = answering.deadline_ns = palmtop_clock_ns() + strtoull(argv[5], NULL, 10) * MILLISECOND;
            status = palmtop_encode_pixels(session, features, &pixels, &looking);
            if (status == PALMTOP_OK) status = palmtop_answer(session, features, prompts, 1, &answering, &result);
            if (status == PALMTOP_OK) {
                print_objects(frame, result);
                done++;
            } else if (status == PALMTOP_DEADLINE) {
                late++;
            }
            if (result.id != 0) palmtop_result_free(result);
            if (status != PALMTOP_OK && status != PALMTOP_DEADLINE) break;
        }
        pthread_mutex_lock(&button.lock);
        button.over = 1;
        pthread_cond_signal(&button.left);
        pthread_mutex_unlock(&button.lock);
        pthread_join(thread, NULL);
        pthread_mutex_destroy(&button.lock);
        pthread_cond_destroy(&button.left);
        if (status == PALMTOP_CANCELLED || status == PALMTOP_DEADLINE) status = PALMTOP_OK;
        if (status != PALMTOP_OK) fprintf(stderr, "%s\n", palmtop_last_error());
        printf("%u frames answered, %u late\n", done, late);
    }

    palmtop_features_free(features);
    palmtop_session_free(session);
    palmtop_model_free(model);
    free(data);
    fclose(frames);
    return status == PALMTOP_OK ? 0 : 1;
}
