/* What the test programs share. */
#ifndef CHECK_H
#define CHECK_H

#include <palmtop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                             \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition,                  \
                    palmtop_last_error());                                                                           \
            exit(1);                                                                                                 \
        }                                                                                                            \
    } while (0)

#define WANT(status, call)                                                                                           \
    do {                                                                                                             \
        palmtop_status got = (call);                                                                                 \
        if (got != (status)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s gave '%s' instead of '%s': %s\n", __FILE__, __LINE__, #call,                  \
                    palmtop_status_name(got), palmtop_status_name(status), palmtop_last_error());                    \
            exit(1);                                                                                                 \
        }                                                                                                            \
        if (got != PALMTOP_OK) CHECK(palmtop_last_error()[0] != 0);                                                  \
    } while (0)

#define OK(call) WANT(PALMTOP_OK, call)

/* An NV12 frame of a slope with stripes, to be freed. */
static inline uint8_t *slope(uint32_t width, uint32_t height, size_t *bytes) {
    size_t luma = (size_t)width * height, chroma = 2 * ((size_t)(width + 1) / 2) * ((size_t)(height + 1) / 2), i;
    uint8_t *data = malloc(luma + chroma);
    CHECK(data != NULL);
    for (i = 0; i < luma + chroma; i++) data[i] = (uint8_t)(i * 7 + i / width * 3 + i % 13);
    *bytes = luma + chroma;
    return data;
}

#endif
