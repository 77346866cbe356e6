/* Does what palmtop.h forbids: changes a picture while it is looked at. ThreadSanitizer must say so. Argument: a model. */
#include "check.h"

#include <pthread.h>

static uint8_t *frame;
static size_t bytes;

static void *paint(void *user) {
    size_t round, i;
    (void)user;
    for (round = 0; round < 100; round++)
        for (i = 0; i < bytes; i++) frame[i] = (uint8_t)(i + round);
    return NULL;
}

int main(int argc, char **argv) {
    palmtop_model model;
    palmtop_session session;
    palmtop_features features;
    palmtop_pixels pixels;
    pthread_t painter;
    CHECK(argc == 2);
    frame = slope(160, 120, &bytes);
    OK(palmtop_model_open(argv[1], &model));
    OK(palmtop_session_new(model, NULL, &session));
    OK(palmtop_features_new(model, &features));
    OK(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_NV12, 160, 120, frame, bytes));
    CHECK(pthread_create(&painter, NULL, paint, NULL) == 0);
    OK(palmtop_encode_pixels(session, features, &pixels, NULL));
    CHECK(pthread_join(painter, NULL) == 0);
    return 0;
}
