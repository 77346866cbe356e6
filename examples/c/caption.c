/* Describes a picture:
 *
 *     caption MODEL PICTURE [PROMPT]
 *
 * Build it with: cc caption.c $(pkg-config --cflags --libs palmtop) -o caption */
#include <palmtop.h>
#include <stdio.h>
#include <stdlib.h>

/* Prints each piece as it arrives. */
static int32_t print_piece(void *user, const palmtop_piece *piece) {
    FILE *out = user;
    fwrite(piece->text, 1, piece->length, out);
    fflush(out);
    return 0;
}

/* Returns the bytes of a file, which the caller must free, or null if the file cannot be read. */
static unsigned char *read_file(const char *path, size_t *bytes) {
    unsigned char *data = NULL;
    FILE *file = fopen(path, "rb");
    *bytes = 0;
    if (file == NULL) return NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long end = ftell(file);
        if (end > 0 && fseek(file, 0, SEEK_SET) == 0 && (data = malloc((size_t)end)) != NULL)
            *bytes = fread(data, 1, (size_t)end, file);
    }
    fclose(file);
    return data;
}

int main(int argc, char **argv) {
    palmtop_model model = {0};
    palmtop_session session = {0};
    palmtop_features features = {0};
    palmtop_answer_options how;
    palmtop_status status;
    size_t bytes;
    unsigned char *picture;
    const char *prompts[1] = {"caption en"};

    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s MODEL PICTURE [PROMPT]\n", argv[0]);
        return 2;
    }
    if (argc == 4) prompts[0] = argv[3];
    if (palmtop_abi_version() != PALMTOP_ABI_VERSION) {
        fprintf(stderr, "this program was compiled for another version of libpalmtop\n");
        return 2;
    }
    picture = read_file(argv[2], &bytes);
    if (picture == NULL) {
        fprintf(stderr, "cannot read %s\n", argv[2]);
        return 1;
    }
    palmtop_answer_options_init(&how, sizeof how);
    how.on_piece = print_piece;
    how.piece_user = stdout;

    status = palmtop_model_open(argv[1], &model);
    if (status == PALMTOP_OK) status = palmtop_session_new(model, NULL, &session);
    if (status == PALMTOP_OK) status = palmtop_features_new(model, &features);
    if (status == PALMTOP_OK) status = palmtop_encode_file(session, features, picture, bytes, NULL);
    if (status == PALMTOP_OK) status = palmtop_answer(session, features, prompts, 1, &how, NULL);
    if (status == PALMTOP_OK) putchar('\n');
    else fprintf(stderr, "%s: %s\n", palmtop_status_name(status), palmtop_last_error());

    /* Handles that were never given are zero, and freeing them does nothing. */
    palmtop_features_free(features);
    palmtop_session_free(session);
    palmtop_model_free(model);
    free(picture);
    return status == PALMTOP_OK ? 0 : 1;
}
