/* A robot's loop: it looks out for things in the frames of its camera, and knows within its budget whether they are there:
 *
 *     robot MODEL FRAMES WIDTH HEIGHT MILLISECONDS_A_FRAME LABEL...
 *
 * FRAMES is a file or pipe with one RGB frame after the other, as from
 *
 *     ffmpeg -f v4l2 -i /dev/video0 -f rawvideo -pix_fmt rgb24 - ...
 *
 * A frame in which nothing moves costs next to nothing. One in which something does is looked at, and the call returns when
 * the answer is there or the budget has passed; a robot that must not drive blind then stops, which the program says. The
 * robot's own work goes where step() is.
 *
 * Build it with: cc robot.c $(pkg-config --cflags --libs palmtop) -o robot */
#include <palmtop.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t stopped;

static void stop(int signal_number) {
    (void)signal_number;
    stopped = 1;
}

/* True for a call that worked; says why of one that did not. */
static int ok(palmtop_status status) {
    if (status != PALMTOP_OK) fprintf(stderr, "%s\n", palmtop_last_error());
    return status == PALMTOP_OK;
}

/* What to look out for, as in a configuration file of `palmtop watch`. False if there is no room for it. */
static int write_questions(char *text, size_t bytes, const char *budget_ms, char **labels, int count) {
    int i, n = snprintf(text, bytes, "budget = \"%sms\"\n[[question]]\nname = \"ahead\"\ndetect = [", budget_ms);
    for (i = 0; i < count && n >= 0 && (size_t)n < bytes; i++)
        n += snprintf(text + n, bytes - (size_t)n, "'%s', ", labels[i]);
    if (n >= 0 && (size_t)n < bytes) n += snprintf(text + n, bytes - (size_t)n, "]\n");
    return n >= 0 && (size_t)n < bytes;
}

/* Where the object of this number is; that of `record`, which was taken last. */
static void print_place(palmtop_watch watch, const palmtop_record *record) {
    palmtop_object object = {0};
    size_t i;
    object.size = sizeof object;
    for (i = 0; palmtop_watch_get_object(watch, i, &object) == PALMTOP_OK; i++)
        if (object.track == record->track && record->track != 0)
            printf(" at %.0f, %.0f to %.0f, %.0f", object.x_min, object.y_min, object.x_max, object.y_max);
}

/* Tells what came and went. */
static void take_records(palmtop_watch watch) {
    palmtop_record record = {0};
    record.size = sizeof record;
    while (palmtop_watch_next(watch, &record) == PALMTOP_OK) {
        if (record.kind != PALMTOP_RECORD_EVENT) continue;
        printf("frame %llu: %s %s", (unsigned long long)record.picture, record.label,
               record.phase == PALMTOP_EVENT_BEGINS ? "comes" : "goes");
        if (record.phase == PALMTOP_EVENT_BEGINS) print_place(watch, &record);
        printf("\n");
    }
}

/* A step of the robot. */
static void step(unsigned frame, int is_late) {
    if (is_late) printf("frame %u: late, the robot stops\n", frame);
}

int main(int argc, char **argv) {
    palmtop_model model = {0};
    palmtop_watch watch = {0};
    palmtop_watch_counts counts = {0};
    palmtop_watch_report report = {0};
    palmtop_pixels pixels;
    char questions[4096];
    unsigned frame, late = 0;
    int works;
    size_t bytes;
    unsigned char *data;
    FILE *frames;
    uint32_t width, height;

    if (argc < 7) {
        fprintf(stderr, "usage: %s MODEL FRAMES WIDTH HEIGHT MS_A_FRAME LABEL...\n", argv[0]);
        return 2;
    }
    width = (uint32_t)strtoul(argv[3], NULL, 10);
    height = (uint32_t)strtoul(argv[4], NULL, 10);
    bytes = (size_t)3 * width * height;
    frames = fopen(argv[2], "rb");
    data = malloc(bytes);
    if (frames == NULL || data == NULL || !write_questions(questions, sizeof questions, argv[5], argv + 6, argc - 6)) {
        fprintf(stderr, "cannot read frames of %u x %u from %s, or there are too many labels\n", width, height, argv[2]);
        if (frames != NULL) fclose(frames);
        free(data);
        return 1;
    }
    signal(SIGINT, stop);
    counts.size = sizeof counts;
    report.size = sizeof report;

    works = ok(palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_RGB, width, height, data, bytes)) &&
            ok(palmtop_model_open(argv[1], &model)) && ok(palmtop_watch_new(model, questions, NULL, &watch));
    if (works) {
        for (frame = 0; works && !stopped && fread(data, 1, bytes, frames) == bytes; frame++) {
            /* If you know when the frame was exposed, say so: the budget counts from there. */
            works = ok(palmtop_watch_frame(watch, 0, &pixels, palmtop_clock_ns(), &report));
            take_records(watch);
            step(frame, report.late > 0);
            late += report.late > 0;
        }
        works = ok(palmtop_watch_end(watch)) && ok(palmtop_watch_get_counts(watch, &counts)) && works;
        take_records(watch);
        printf("%u frames, %llu answers, %u late\n", frame, (unsigned long long)counts.answers, late);
    }

    palmtop_watch_free(watch);
    palmtop_model_free(model);
    free(data);
    fclose(frames);
    return works ? 0 : 1;
}
