/* The native side of dev.palmtop.Palmtop: arguments to palmtop.h, results to objects, errors to exceptions.
 *
 * Strings pass as arrays of UTF-8 bytes, because the JVM's own functions use modified UTF-8. Build it with:
 *     cc -shared -fPIC -I$JAVA_HOME/include -I$JAVA_HOME/include/linux palmtop_jni.c -lpalmtop -o libpalmtop_jni.so
 * or, with the NDK, as a CMake library that links libpalmtop.a. */
#include <jni.h>
#include <palmtop.h>
#include <stdlib.h>
#include <string.h>

#define NATIVE(type, name) JNIEXPORT type JNICALL Java_dev_palmtop_Palmtop_##name
#define CLASS "dev/palmtop/Palmtop$"

/* Maximum number of requests in a call, and of pictures of all of them. */
#define REQUESTS_MAX 256
#define PICTURES_MAX 512

static jbyteArray new_bytes(JNIEnv *env, const char *text, size_t length) {
    jbyteArray array = (*env)->NewByteArray(env, (jsize)length);
    if (array != NULL) (*env)->SetByteArrayRegion(env, array, 0, (jsize)length, (const jbyte *)text);
    return array;
}

/* Creates an object of one of our classes. Returns null with an exception if that fails. */
static jobject new_object(JNIEnv *env, const char *name, const char *signature, const jvalue *arguments) {
    jclass class = (*env)->FindClass(env, name);
    jmethodID constructor = class == NULL ? NULL : (*env)->GetMethodID(env, class, "<init>", signature);
    return constructor == NULL ? NULL : (*env)->NewObjectA(env, class, constructor, arguments);
}

/* Throws the last error, unless there is an exception already. */
static void fail(JNIEnv *env, palmtop_status status) {
    const char *message = palmtop_last_error();
    jvalue arguments[2];
    jobject error;
    if ((*env)->ExceptionCheck(env)) return;
    arguments[0].i = status;
    arguments[1].l = new_bytes(env, message, strlen(message));
    if (arguments[1].l == NULL) return;
    error = new_object(env, CLASS "Error", "(I[B)V", arguments);
    if (error != NULL) (*env)->Throw(env, (jthrowable)error);
}

static void check(JNIEnv *env, palmtop_status status) {
    if (status != PALMTOP_OK) fail(env, status);
}

static palmtop_model to_model(jlong id) { return (palmtop_model){(uint64_t)id}; }
static palmtop_session to_session(jlong id) { return (palmtop_session){(uint64_t)id}; }
static palmtop_features to_features(jlong id) { return (palmtop_features){(uint64_t)id}; }
static palmtop_watch to_watch(jlong id) { return (palmtop_watch){(uint64_t)id}; }

NATIVE(jint, abiVersion)(JNIEnv *env, jclass class) {
    (void)env, (void)class;
    return (jint)palmtop_abi_version();
}

NATIVE(jlong, clock)(JNIEnv *env, jclass class) {
    (void)env, (void)class;
    return (jlong)palmtop_clock_ns();
}

NATIVE(jlong, openModel)(JNIEnv *env, jclass class, jbyteArray path) {
    palmtop_model model = {0};
    jbyte *text = (*env)->GetByteArrayElements(env, path, NULL);
    (void)class;
    if (text == NULL) return 0;
    check(env, palmtop_model_open((const char *)text, &model));
    (*env)->ReleaseByteArrayElements(env, path, text, JNI_ABORT);
    return (jlong)model.id;
}

NATIVE(jlong, openModelFd)(JNIEnv *env, jclass class, jint fd, jlong offset, jlong length) {
    palmtop_model model = {0};
    (void)class;
    check(env, palmtop_model_open_fd(fd, (uint64_t)offset, (uint64_t)length, &model));
    return (jlong)model.id;
}

NATIVE(void, freeModel)(JNIEnv *env, jclass class, jlong model) {
    (void)class;
    check(env, palmtop_model_free(to_model(model)));
}

/* The ten numbers of SessionOptions. */
static palmtop_session_options to_options(JNIEnv *env, jintArray array) {
    palmtop_session_options options;
    jint numbers[10];
    palmtop_session_options_init(&options, sizeof options);
    (*env)->GetIntArrayRegion(env, array, 0, 10, numbers);
    options.batch = (uint32_t)numbers[0];
    options.prompt_tokens = (uint32_t)numbers[1];
    options.new_tokens = (uint32_t)numbers[2];
    options.image_side = (uint32_t)numbers[3];
    options.kv = numbers[4];
    options.threads = (uint32_t)numbers[5];
    options.nice = numbers[6];
    options.pictures = (uint32_t)numbers[7];
    options.draft_tokens = (uint32_t)numbers[8];
    options.filter = numbers[9];
    return options;
}

NATIVE(jlongArray, planSession)(JNIEnv *env, jclass class, jlong model, jintArray numbers) {
    palmtop_session_options options = to_options(env, numbers);
    palmtop_plan plan = {0};
    palmtop_status status;
    jlongArray array;
    (void)class;
    plan.size = sizeof plan;
    status = palmtop_model_plan(to_model(model), &options, &plan);
    check(env, status);
    array = status == PALMTOP_OK ? (*env)->NewLongArray(env, 2) : NULL;
    if (array != NULL) {
        jlong bytes[2] = {(jlong)plan.session_bytes, (jlong)plan.weights_bytes};
        (*env)->SetLongArrayRegion(env, array, 0, 2, bytes);
    }
    return array;
}

NATIVE(jlong, newSession)(JNIEnv *env, jclass class, jlong model, jintArray numbers, jintArray cores) {
    palmtop_session_options options = to_options(env, numbers);
    palmtop_session session = {0};
    jint *list = (*env)->GetIntArrayElements(env, cores, NULL);
    (void)class;
    if (list == NULL) return 0;
    options.core_count = (uint32_t)(*env)->GetArrayLength(env, cores);
    options.cores = (const uint32_t *)list;
    check(env, palmtop_session_new(to_model(model), &options, &session));
    (*env)->ReleaseIntArrayElements(env, cores, list, JNI_ABORT);
    return (jlong)session.id;
}

NATIVE(void, freeSession)(JNIEnv *env, jclass class, jlong session) {
    (void)class;
    check(env, palmtop_session_free(to_session(session)));
}

NATIVE(void, cancelSession)(JNIEnv *env, jclass class, jlong session, jboolean cancel) {
    palmtop_session s = to_session(session);
    (void)class;
    check(env, cancel ? palmtop_session_cancel(s) : palmtop_session_reset_cancel(s));
}

NATIVE(jlong, newFeatures)(JNIEnv *env, jclass class, jlong model) {
    palmtop_features features = {0};
    (void)class;
    check(env, palmtop_features_new(to_model(model), &features));
    return (jlong)features.id;
}

NATIVE(void, freeFeatures)(JNIEnv *env, jclass class, jlong features) {
    (void)class;
    check(env, palmtop_features_free(to_features(features)));
}

NATIVE(void, encodeFile)(JNIEnv *env, jclass class, jlong session, jlong features, jbyteArray file, jlong deadline) {
    palmtop_encode_options options;
    jbyte *data = (*env)->GetByteArrayElements(env, file, NULL);
    (void)class;
    if (data == NULL) return;
    palmtop_encode_options_init(&options, sizeof options);
    options.deadline_ns = (uint64_t)deadline;
    check(env, palmtop_encode_file(to_session(session), to_features(features), data, (size_t)(*env)->GetArrayLength(env, file),
                                   &options));
    (*env)->ReleaseByteArrayElements(env, file, data, JNI_ABORT);
}

/* A picture in direct buffers: format, width, height, rotation, color, and a stride and a step for each plane. */
static palmtop_pixels to_pixels(JNIEnv *env, jintArray numbers, jobjectArray planes, jintArray strides) {
    palmtop_pixels pixels;
    jint n[5], stride[6];
    jsize i, count = (*env)->GetArrayLength(env, planes);
    (*env)->GetIntArrayRegion(env, numbers, 0, 5, n);
    if (count > 3) count = 3;
    (*env)->GetIntArrayRegion(env, strides, 0, 2 * count, stride);
    palmtop_pixels_init(&pixels, sizeof pixels, PALMTOP_RGB, 0, 0, NULL, 0);
    pixels.format = n[0];
    pixels.width = (uint32_t)n[1];
    pixels.height = (uint32_t)n[2];
    pixels.rotation = (uint32_t)n[3];
    pixels.color = n[4];
    for (i = 0; i < count; i++) {
        jobject buffer = (*env)->GetObjectArrayElement(env, planes, i);
        pixels.planes[i].data = (*env)->GetDirectBufferAddress(env, buffer);
        pixels.planes[i].bytes = (size_t)(*env)->GetDirectBufferCapacity(env, buffer);
        pixels.planes[i].stride = (size_t)stride[2 * i];
        pixels.planes[i].step = (size_t)stride[2 * i + 1];
        (*env)->DeleteLocalRef(env, buffer);
    }
    return pixels;
}

NATIVE(void, encodePixels)(JNIEnv *env, jclass class, jlong session, jlong features, jintArray numbers, jobjectArray planes,
                           jintArray strides, jlong deadline) {
    palmtop_pixels pixels = to_pixels(env, numbers, planes, strides);
    palmtop_encode_options options;
    (void)class;
    palmtop_encode_options_init(&options, sizeof options);
    options.deadline_ns = (uint64_t)deadline;
    check(env, palmtop_encode_pixels(to_session(session), to_features(features), &pixels, &options));
}

/* The receiver of the pieces. */
struct hearing {
    JNIEnv *env;
    jobject object;
    jmethodID piece;
};

static int32_t hear(void *user, const palmtop_piece *piece) {
    struct hearing *hearing = user;
    JNIEnv *env = hearing->env;
    jbyteArray text;
    jboolean goes_on = JNI_FALSE;
    if (piece->length == 0) return 0;
    text = new_bytes(env, piece->text, piece->length);
    if (text != NULL) {
        goes_on = (*env)->CallBooleanMethod(env, hearing->object, hearing->piece, (jint)piece->prompt, text);
        (*env)->DeleteLocalRef(env, text);
    }
    /* What the listener throws ends the answer, and goes on from there. */
    return goes_on && !(*env)->ExceptionCheck(env) ? 0 : 1;
}

/* Where objects come from: an answer of a result, or the record that a watch gave last. */
struct source {
    palmtop_result result;
    size_t answer;
    palmtop_watch watch;
};

static palmtop_status get_object(const struct source *from, size_t index, palmtop_object *object) {
    if (from->watch.id != 0) return palmtop_watch_get_object(from->watch, index, object);
    return palmtop_result_get_object(from->result, from->answer, index, object);
}

static palmtop_status get_mask(const struct source *from, size_t index, palmtop_mask *mask, uint8_t *pixels, size_t bytes) {
    if (from->watch.id != 0) return palmtop_watch_get_mask(from->watch, index, mask, pixels, bytes);
    return palmtop_result_get_mask(from->result, from->answer, index, mask, pixels, bytes);
}

/* The mask of an object, or null if it has none. */
static jobject new_mask(JNIEnv *env, const struct source *from, size_t index) {
    palmtop_mask mask = {0};
    jvalue arguments[5];
    jbyteArray pixels;
    jbyte *data;
    size_t bytes;
    mask.size = sizeof mask;
    if (get_mask(from, index, &mask, NULL, 0) != PALMTOP_OK) return NULL;
    bytes = (size_t)mask.width * mask.height;
    pixels = (*env)->NewByteArray(env, (jsize)bytes);
    data = pixels == NULL ? NULL : (*env)->GetByteArrayElements(env, pixels, NULL);
    if (data == NULL) return NULL;
    get_mask(from, index, &mask, (uint8_t *)data, bytes);
    (*env)->ReleaseByteArrayElements(env, pixels, data, 0);
    arguments[0].i = (jint)mask.x;
    arguments[1].i = (jint)mask.y;
    arguments[2].i = (jint)mask.width;
    arguments[3].i = (jint)mask.height;
    arguments[4].l = pixels;
    return new_object(env, CLASS "Mask", "(IIII[B)V", arguments);
}

static jobject new_detection(JNIEnv *env, const struct source *from, size_t index) {
    palmtop_object object = {0};
    jvalue arguments[8];
    object.size = sizeof object;
    if (get_object(from, index, &object) != PALMTOP_OK) return NULL;
    arguments[0].l = new_bytes(env, object.label, object.label_length);
    arguments[1].f = object.score;
    arguments[2].f = object.x_min;
    arguments[3].f = object.y_min;
    arguments[4].f = object.x_max;
    arguments[5].f = object.y_max;
    arguments[6].l = object.has_mask ? new_mask(env, from, index) : NULL;
    arguments[7].j = (jlong)object.track;
    if ((*env)->ExceptionCheck(env)) return NULL;
    return new_object(env, CLASS "Detection", "([BFFFFFL" CLASS "Mask;J)V", arguments);
}

/* All objects of a source, `count` of them. */
static jobjectArray new_detections(JNIEnv *env, const struct source *from, size_t count) {
    jclass detection = (*env)->FindClass(env, CLASS "Detection");
    jobjectArray objects = detection == NULL ? NULL : (*env)->NewObjectArray(env, (jsize)count, detection, NULL);
    size_t i;
    for (i = 0; objects != NULL && i < count; i++) {
        jobject object;
        if ((*env)->PushLocalFrame(env, 16) != 0) return NULL;
        object = (*env)->PopLocalFrame(env, new_detection(env, from, i));
        if (object == NULL) return NULL;
        (*env)->SetObjectArrayElement(env, objects, (jsize)i, object);
        (*env)->DeleteLocalRef(env, object);
    }
    return objects;
}

static jobject new_answer(JNIEnv *env, palmtop_result result, size_t index) {
    const struct source from = {result, index, {0}};
    palmtop_answer_info info = {0};
    jvalue arguments[8];
    jintArray tokens;
    jfloatArray probabilities;
    jobjectArray objects;
    info.size = sizeof info;
    if (palmtop_result_get_answer(result, index, &info) != PALMTOP_OK) return NULL;
    arguments[0].l = new_bytes(env, info.text, info.text_length);
    tokens = (*env)->NewIntArray(env, (jsize)info.token_count);
    probabilities = (*env)->NewFloatArray(env, (jsize)info.token_count);
    objects = new_detections(env, &from, info.object_count);
    if (arguments[0].l == NULL || tokens == NULL || probabilities == NULL || objects == NULL) return NULL;
    (*env)->SetIntArrayRegion(env, tokens, 0, (jsize)info.token_count, (const jint *)info.tokens);
    (*env)->SetFloatArrayRegion(env, probabilities, 0, (jsize)info.token_count, info.probabilities);
    arguments[1].l = tokens;
    arguments[2].l = probabilities;
    arguments[3].i = info.stop;
    arguments[4].i = (jint)info.prompt_tokens;
    arguments[5].f = info.likelihood;
    arguments[6].i = (jint)info.accepted_draft_tokens;
    arguments[7].l = objects;
    return new_object(env, CLASS "Answer", "([B[I[FIIFI[L" CLASS "Detection;)V", arguments);
}

/* All answers of a result. */
static jobjectArray new_answers(JNIEnv *env, palmtop_result result) {
    jclass answer = (*env)->FindClass(env, CLASS "Answer");
    size_t i, count = palmtop_result_count(result);
    jobjectArray array;
    if (answer == NULL) return NULL;
    array = (*env)->NewObjectArray(env, (jsize)count, answer, NULL);
    for (i = 0; array != NULL && i < count; i++) {
        jobject object;
        if ((*env)->PushLocalFrame(env, 16) != 0) return NULL;
        object = (*env)->PopLocalFrame(env, new_answer(env, result, i));
        if (object == NULL) return NULL;
        (*env)->SetObjectArrayElement(env, array, (jsize)i, object);
        (*env)->DeleteLocalRef(env, object);
    }
    return array;
}

/* Requests as the library takes them, with what their lists lie in. */
struct asked {
    palmtop_request requests[REQUESTS_MAX];
    palmtop_features pictures[PICTURES_MAX];
    jbyteArray prompts[REQUESTS_MAX];
    jint *drafts;
};

/* Fills in requests: of each its prompt, and how many of the pictures and of the tokens of drafts are its own. Where there
 * are more than there is room for, none are: the library refuses their number, and looks no further. */
static void to_requests(JNIEnv *env, struct asked *asked, jobjectArray prompts, jintArray counts, jlongArray features,
                        jintArray drafts) {
    jsize i, count = (*env)->GetArrayLength(env, prompts), pictures = (*env)->GetArrayLength(env, features);
    jlong ids[PICTURES_MAX];
    jint n[2 * REQUESTS_MAX];
    size_t first_picture = 0, first_token = 0;
    asked->drafts = (*env)->GetIntArrayElements(env, drafts, NULL);
    if (count > REQUESTS_MAX) return;
    memset(asked->requests, 0, sizeof asked->requests);
    (*env)->GetIntArrayRegion(env, counts, 0, 2 * count, n);
    if (pictures <= PICTURES_MAX) {
        (*env)->GetLongArrayRegion(env, features, 0, pictures, ids);
        for (i = 0; i < pictures; i++) asked->pictures[i] = to_features(ids[i]);
    }
    for (i = 0; i < count; i++) {
        palmtop_request *request = &asked->requests[i];
        asked->prompts[i] = (*env)->GetObjectArrayElement(env, prompts, i);
        request->size = sizeof *request;
        request->prompt = (const char *)(*env)->GetByteArrayElements(env, asked->prompts[i], NULL);
        request->picture_count = (size_t)n[2 * i];
        request->draft_count = asked->drafts == NULL ? 0 : (size_t)n[2 * i + 1];
        if (pictures <= PICTURES_MAX) request->pictures = asked->pictures + first_picture;
        if (request->draft_count > 0) request->draft = (const uint32_t *)asked->drafts + first_token;
        first_picture += request->picture_count;
        first_token += request->draft_count;
    }
}

static void free_requests(JNIEnv *env, struct asked *asked, jsize count, jintArray drafts) {
    jsize i;
    for (i = 0; i < count && count <= REQUESTS_MAX; i++) {
        jbyte *prompt = (jbyte *)asked->requests[i].prompt;
        if (prompt != NULL) (*env)->ReleaseByteArrayElements(env, asked->prompts[i], prompt, JNI_ABORT);
        (*env)->DeleteLocalRef(env, asked->prompts[i]);
    }
    if (asked->drafts != NULL) (*env)->ReleaseIntArrayElements(env, drafts, asked->drafts, JNI_ABORT);
}

NATIVE(jobjectArray, ask)(JNIEnv *env, jclass class, jlong session, jobjectArray prompts, jintArray counts,
                          jlongArray features, jintArray drafts, jintArray numbers, jfloatArray fractions, jlongArray longs,
                          jobject listener) {
    palmtop_answer_options options;
    palmtop_result result = {0};
    palmtop_status status;
    struct hearing hearing = {env, listener, NULL};
    struct asked asked;
    jsize count = (*env)->GetArrayLength(env, prompts);
    jint n[2];
    jfloat f[2];
    jlong l[2];
    jobjectArray answers = NULL;
    (void)class;
    (*env)->GetIntArrayRegion(env, numbers, 0, 2, n);
    (*env)->GetFloatArrayRegion(env, fractions, 0, 2, f);
    (*env)->GetLongArrayRegion(env, longs, 0, 2, l);
    palmtop_answer_options_init(&options, sizeof options);
    options.max_new_tokens = (uint32_t)n[0];
    options.top_k = (uint32_t)n[1];
    options.temperature = f[0];
    options.top_p = f[1];
    options.seed = (uint64_t)l[0];
    options.deadline_ns = (uint64_t)l[1];
    if (listener != NULL) {
        jclass its_class = (*env)->GetObjectClass(env, listener);
        hearing.piece = (*env)->GetMethodID(env, its_class, "piece", "(I[B)Z");
        if (hearing.piece == NULL) return NULL;
        options.on_piece = hear;
        options.piece_user = &hearing;
    }
    if ((*env)->EnsureLocalCapacity(env, REQUESTS_MAX + 16) != 0) return NULL;
    to_requests(env, &asked, prompts, counts, features, drafts);
    status = palmtop_answer_requests(to_session(session), asked.requests, (size_t)count, &options, &result);
    free_requests(env, &asked, count, drafts);
    check(env, status);
    if (status == PALMTOP_OK && !(*env)->ExceptionCheck(env)) answers = new_answers(env, result);
    if (result.id != 0) palmtop_result_free(result);
    return answers;
}

NATIVE(jlong, newWatch)(JNIEnv *env, jclass class, jlong model, jbyteArray questions, jintArray numbers, jintArray cores,
                        jintArray flags) {
    palmtop_session_options limits = to_options(env, numbers);
    palmtop_watch_options options;
    palmtop_watch watch = {0};
    jint flag[2];
    jint *list = (*env)->GetIntArrayElements(env, cores, NULL);
    jbyte *text = (*env)->GetByteArrayElements(env, questions, NULL);
    (void)class;
    (*env)->GetIntArrayRegion(env, flags, 0, 2, flag);
    if (list != NULL && text != NULL) {
        limits.core_count = (uint32_t)(*env)->GetArrayLength(env, cores);
        limits.cores = (const uint32_t *)list;
        palmtop_watch_options_init(&options, sizeof options);
        options.session = &limits;
        options.all_answers = (uint32_t)flag[0];
        options.recording = (uint32_t)flag[1];
        check(env, palmtop_watch_new(to_model(model), (const char *)text, &options, &watch));
    }
    if (list != NULL) (*env)->ReleaseIntArrayElements(env, cores, list, JNI_ABORT);
    if (text != NULL) (*env)->ReleaseByteArrayElements(env, questions, text, JNI_ABORT);
    return (jlong)watch.id;
}

NATIVE(void, freeWatch)(JNIEnv *env, jclass class, jlong watch) {
    (void)class;
    check(env, palmtop_watch_free(to_watch(watch)));
}

NATIVE(void, watchFrame)(JNIEnv *env, jclass class, jlong watch, jint camera, jlong time, jintArray numbers,
                         jobjectArray planes, jintArray strides) {
    palmtop_pixels pixels = to_pixels(env, numbers, planes, strides);
    (void)class;
    check(env, palmtop_watch_frame(to_watch(watch), (uint32_t)camera, &pixels, (uint64_t)time, NULL));
}

/* The oldest record that waits, or null if none does. */
NATIVE(jobject, nextRecord)(JNIEnv *env, jclass class, jlong watch) {
    const struct source from = {{0}, 0, to_watch(watch)};
    palmtop_record record = {0};
    palmtop_status status;
    const char *json = NULL;
    size_t length = 0, i;
    jclass bytes;
    jobjectArray texts;
    jlongArray numbers;
    jvalue arguments[4];
    (void)class;
    record.size = sizeof record;
    status = palmtop_watch_next(from.watch, &record);
    if (status == PALMTOP_NOT_FOUND) return NULL;
    if (status == PALMTOP_OK) status = palmtop_watch_record_json(from.watch, &json, &length);
    if (status != PALMTOP_OK) {
        fail(env, status);
        return NULL;
    }
    bytes = (*env)->FindClass(env, "[B");
    texts = bytes == NULL ? NULL : (*env)->NewObjectArray(env, 7, bytes, NULL);
    numbers = (*env)->NewLongArray(env, 9);
    if (texts == NULL || numbers == NULL) return NULL;
    {
        const char *const all[] = {record.camera, record.question, record.rule, record.id, record.text, record.label, json};
        const jlong n[] = {record.kind,
                           record.phase,
                           (jlong)record.picture,
                           (jlong)record.time_ns,
                           (jlong)record.unix_ns,
                           (jlong)record.latency_ns,
                           (jlong)record.lasted_ns,
                           (jlong)record.track,
                           record.changed};
        for (i = 0; i < 7; i++) {
            /* An answer may have a zero in it. */
            jbyteArray text = new_bytes(env, all[i], i == 4 ? record.text_length : strlen(all[i]));
            if (text == NULL) return NULL;
            (*env)->SetObjectArrayElement(env, texts, (jsize)i, text);
            (*env)->DeleteLocalRef(env, text);
        }
        (*env)->SetLongArrayRegion(env, numbers, 0, 9, n);
    }
    arguments[0].l = texts;
    arguments[1].l = numbers;
    arguments[2].f = record.score;
    arguments[3].l = new_detections(env, &from, record.object_count);
    if (arguments[3].l == NULL) return NULL;
    return new_object(env, CLASS "Record", "([[B[JF[L" CLASS "Detection;)V", arguments);
}

NATIVE(void, endWatch)(JNIEnv *env, jclass class, jlong watch) {
    (void)class;
    check(env, palmtop_watch_end(to_watch(watch)));
}

NATIVE(void, commandWatch)(JNIEnv *env, jclass class, jlong watch, jbyteArray line) {
    jbyte *text = (*env)->GetByteArrayElements(env, line, NULL);
    (void)class;
    if (text == NULL) return;
    check(env, palmtop_watch_command(to_watch(watch), (const char *)text));
    (*env)->ReleaseByteArrayElements(env, line, text, JNI_ABORT);
}

NATIVE(void, promptWatch)(JNIEnv *env, jclass class, jlong watch, jbyteArray question, jbyteArray prompt) {
    jbyte *name = (*env)->GetByteArrayElements(env, question, NULL), *text = (*env)->GetByteArrayElements(env, prompt, NULL);
    (void)class;
    if (name != NULL && text != NULL)
        check(env, palmtop_watch_set_prompt(to_watch(watch), (const char *)name, (const char *)text));
    if (name != NULL) (*env)->ReleaseByteArrayElements(env, question, name, JNI_ABORT);
    if (text != NULL) (*env)->ReleaseByteArrayElements(env, prompt, text, JNI_ABORT);
}

NATIVE(jlongArray, countWatch)(JNIEnv *env, jclass class, jlong watch) {
    palmtop_watch_counts counts = {0};
    palmtop_status status;
    jlongArray array;
    (void)class;
    counts.size = sizeof counts;
    status = palmtop_watch_get_counts(to_watch(watch), &counts);
    check(env, status);
    array = status == PALMTOP_OK ? (*env)->NewLongArray(env, 7) : NULL;
    if (array != NULL) {
        const jlong n[] = {(jlong)counts.pictures, (jlong)counts.encoded, (jlong)counts.answers, (jlong)counts.late,
                           (jlong)counts.events,   (jlong)counts.tokens,  (jlong)counts.drafted};
        (*env)->SetLongArrayRegion(env, array, 0, 7, n);
    }
    return array;
}

NATIVE(void, cancelWatch)(JNIEnv *env, jclass class, jlong watch, jboolean cancel) {
    palmtop_watch w = to_watch(watch);
    (void)class;
    check(env, cancel ? palmtop_watch_cancel(w) : palmtop_watch_reset_cancel(w));
}
