package dev.palmtop;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * palmtop for the JVM and Android: asks PaliGemma about pictures, on the CPU.
 *
 * <pre>{@code
 * try (Palmtop.Model model = Palmtop.Model.open("model.palm");
 *      Palmtop.Session session = model.session(new Palmtop.SessionOptions());
 *      Palmtop.Features features = model.features()) {
 *     session.encode(features, jpegBytes, 0);
 *     for (Palmtop.Answer answer : session.answer(features, new Palmtop.AnswerOptions(), "detect cat"))
 *         System.out.println(answer.text + " " + answer.objects);
 * }
 * }</pre>
 *
 * A {@link Watch} asks the same questions of a camera's frames again and again, and only when something in them changes.
 *
 * Any thread may use these objects. Only one thread at a time may use a session or a watch; otherwise the call throws an
 * {@link Error} with status {@link #BUSY}. The exceptions are {@link Session#cancel} and {@link Watch#cancel}. If you use an
 * object after closing it, the call throws; nothing crashes. The C header, palmtop.h, has the details. Kotlin flows are in
 * Flows.kt and Watching.kt.
 */
public final class Palmtop {
    /** Pixel formats, as in palmtop.h. */
    public static final int RGB = 1, BGR = 2, RGBA = 3, BGRA = 4, GREY = 5, NV12 = 6, NV21 = 7, YUV420 = 8;

    /** The meaning of luma and chroma, as in palmtop.h. */
    public static final int BT601_LIMITED = 0, BT601_FULL = 1, BT709_LIMITED = 2, BT709_FULL = 3;

    /** How pictures are resized, as in palmtop.h. */
    public static final int FILTER_OF_MODEL = 0, FILTER_BICUBIC = 1, FILTER_BILINEAR = 2, FILTER_BILINEAR_ALIASED = 3;

    /** Why an answer ended. */
    public static final int STOP_END = 0, STOP_LIMIT = 1, STOP_CANCELLED = 2, STOP_DEADLINE = 3, STOP_CALLBACK = 4;

    /** Some of the values of {@link Error#status}; all are in palmtop.h. */
    public static final int INVALID_ARGUMENT = 1, INVALID_HANDLE = 2, BUSY = 3, BAD_MODEL = 5, BAD_IMAGE = 6, CANCELLED = 10,
            DEADLINE = 11;

    /** The ABI version of the library that this class was written for. */
    private static final int ABI_VERSION = 1;

    static {
        System.loadLibrary("palmtop_jni");
        if (abiVersion() != ABI_VERSION) {
            throw new UnsatisfiedLinkError("libpalmtop has interface " + abiVersion() + ", this class is for " + ABI_VERSION);
        }
    }

    private Palmtop() {}

    /** An error of the library: a status, and a sentence that says what went wrong. */
    public static final class Error extends RuntimeException {
        private static final long serialVersionUID = 1;

        /** A value of palmtop_status. */
        public final int status;

        Error(int status, byte[] message) {
            super(text(message));
            this.status = status;
        }
    }

    /** A clock for deadlines, in nanoseconds. */
    public static long clockNanos() {
        return clock();
    }

    /** An open model file. */
    public static final class Model extends Handle {
        private Model(long id) {
            super(id);
        }

        /** Opens the file at a path. */
        public static Model open(String path) {
            return new Model(openModel(bytes(path)));
        }

        /**
         * Opens a part of an open file: what android.content.res.AssetFileDescriptor says of an asset, with
         * getParcelFileDescriptor().getFd(), getStartOffset() and getLength(). The descriptor may be closed afterwards.
         */
        public static Model open(int fd, long offset, long length) {
            return new Model(openModelFd(fd, offset, length));
        }

        /** Creates a session. */
        public Session session(SessionOptions options) {
            return new Session(newSession(id, options.numbers(), options.cores));
        }

        /** Allocates the features of one picture. */
        public Features features() {
            return new Features(newFeatures(id));
        }

        /**
         * Creates a watch. The questions are a text in TOML, the configuration of the program `palmtop watch`: [[question]] with
         * its rules, [[camera]], [zone], [gate], budget, every, at_least_every. Without [[camera]] there is one camera.
         */
        public Watch watch(String questions, WatchOptions options) {
            int[] flags = {options.allAnswers ? 1 : 0, options.recording ? 1 : 0};
            return new Watch(newWatch(id, bytes(questions), options.session.numbers(), options.session.cores, flags));
        }

        /** The bytes that a session would take, including features of one picture, and those of the mapped weights. */
        public Plan plan(SessionOptions options) {
            long[] bytes = planSession(id, options.numbers());
            return new Plan(bytes[0], bytes[1]);
        }

        @Override
        void free(long id) {
            freeModel(id);
        }
    }

    /** What a session takes. */
    public static final class Plan {
        public final long sessionBytes;
        public final long weightsBytes;

        Plan(long sessionBytes, long weightsBytes) {
            this.sessionBytes = sessionBytes;
            this.weightsBytes = weightsBytes;
        }
    }

    /** Limits and threads of a session. */
    public static final class SessionOptions {
        /** Maximum number of prompts answered together. */
        public int batch = 1;
        /** Maximum tokens of a prompt. */
        public int promptTokens = 256;
        /** Maximum tokens of an answer. */
        public int newTokens = 256;
        /** Maximum pixels of the longer side of a picture. */
        public int imageSide = 16384;
        /** Format of the KV cache: 0 to fit the model, 1 f32, 2 f16, 3 int8. */
        public int kv = 0;
        /** Threads that compute; 0: one per physical core. */
        public int threads = 0;
        /** Niceness of the started threads, -20 to 19; 127: unchanged. */
        public int nice = 127;
        /** Cores for the started threads; none: any core. */
        public int[] cores = {};
        /** Maximum number of pictures of a prompt. */
        public int pictures = 1;
        /** Maximum tokens of a draft that are checked in one step; 0: drafts are of no use. */
        public int draftTokens = 0;
        /** How pictures are resized; fine-tunes on videos were trained with {@link #FILTER_BILINEAR_ALIASED}. */
        public int filter = FILTER_OF_MODEL;

        private int[] numbers() {
            return new int[] {
                batch, promptTokens, newTokens, imageSide, kv, threads, nice, pictures, draftTokens, filter
            };
        }
    }

    /** Options of an answer. */
    public static final class AnswerOptions {
        /** Maximum tokens of an answer; 0: the session's limit. */
        public int maxNewTokens = 0;
        /** Sample only from this many most likely tokens; 0: all. */
        public int topK = 0;
        /** 0: always the most likely token (arg-max). */
        public float temperature = 0;
        /** Sample only from the most likely tokens that together have this probability; 0: all. */
        public float topP = 0;
        /** Seed of the sampler. */
        public long seed = 0;
        /** A time of {@link #clockNanos}; 0: no deadline. */
        public long deadlineNanos = 0;
        /** Receives the pieces on the calling thread; may be null. */
        public PieceListener onPiece = null;
    }

    /**
     * A prompt, and the pictures that it is about: frames of a film, or a pair. The decoder sees them in this order. Their
     * features stay as they are: for the next question about a film encode the frames that are new, and hand in all of them.
     */
    public static final class Request {
        final Features[] pictures;
        final String prompt;
        /**
         * Tokens that the answer may turn out to be, such as those of the last answer about the same scene. The answer is the
         * one without a draft, bit for bit; it comes sooner, the more of it the draft has right.
         */
        public int[] draft = {};

        public Request(String prompt, Features... pictures) {
            this.prompt = prompt;
            this.pictures = pictures.clone();
        }
    }

    /** Receives an answer as it is generated. */
    public interface PieceListener {
        /** Receives whole characters of the answer to a prompt or request. Return false to end that answer. */
        boolean piece(int prompt, String text);
    }

    /** The output of the image encoder for one picture. */
    public static final class Features extends Handle {
        private Features(long id) {
            super(id);
        }

        @Override
        void free(long id) {
            freeFeatures(id);
        }
    }

    /** Samples of one kind, in a direct buffer from its position on: android.media.Image.Plane. */
    public static final class Plane {
        final ByteBuffer buffer;
        final int rowStride;
        final int pixelStride;

        public Plane(ByteBuffer buffer, int rowStride, int pixelStride) {
            if (!buffer.isDirect()) throw new IllegalArgumentException("a plane must be a direct buffer");
            this.buffer = buffer.slice();
            this.rowStride = rowStride;
            this.pixelStride = pixelStride;
        }
    }

    private static ByteBuffer[] buffers(Plane[] planes) {
        ByteBuffer[] buffers = new ByteBuffer[planes.length];
        for (int i = 0; i < planes.length; i++) buffers[i] = planes[i].buffer;
        return buffers;
    }

    private static int[] strides(Plane[] planes) {
        int[] strides = new int[2 * planes.length];
        for (int i = 0; i < planes.length; i++) {
            strides[2 * i] = planes[i].rowStride;
            strides[2 * i + 1] = planes[i].pixelStride;
        }
        return strides;
    }

    /** The memory and the threads that compute answers. */
    public static final class Session extends Handle {
        private Session(long id) {
            super(id);
        }

        /** Encodes the picture in a JPEG, PNG, WebP, BMP, GIF or TIFF file. */
        public void encode(Features features, byte[] file, long deadlineNanos) {
            encodeFile(id, features.id, file, deadlineNanos);
        }

        /**
         * Encodes pixels in place. For android.media.Image of YUV_420_888: YUV420, its three planes, and
         * ImageInfo.getRotationDegrees().
         */
        public void encode(Features features, int format, int width, int height, int rotation, int color, long deadlineNanos,
                Plane... planes) {
            int[] numbers = {format, width, height, rotation, color};
            encodePixels(id, features.id, numbers, buffers(planes), strides(planes), deadlineNanos);
        }

        /** Answers prompts about a picture together. */
        public List<Answer> answer(Features features, AnswerOptions options, String... prompts) {
            Request[] requests = new Request[prompts.length];
            for (int i = 0; i < prompts.length; i++) requests[i] = new Request(prompts[i], features);
            return answer(options, requests);
        }

        /**
         * Answers requests together, each about pictures of its own. Each answer is the same as if asked alone. Boxes and masks
         * are in pixels of the request's first picture.
         */
        public List<Answer> answer(AnswerOptions options, Request... requests) {
            byte[][] texts = new byte[requests.length][];
            int[] counts = new int[2 * requests.length];
            int pictures = 0, drafted = 0;
            for (int i = 0; i < requests.length; i++) {
                texts[i] = bytes(requests[i].prompt);
                pictures += counts[2 * i] = requests[i].pictures.length;
                drafted += counts[2 * i + 1] = requests[i].draft.length;
            }
            long[] features = new long[pictures];
            int[] drafts = new int[drafted];
            pictures = drafted = 0;
            for (Request request : requests) {
                for (Features picture : request.pictures) features[pictures++] = picture.id;
                System.arraycopy(request.draft, 0, drafts, drafted, request.draft.length);
                drafted += request.draft.length;
            }
            int[] numbers = {options.maxNewTokens, options.topK};
            float[] fractions = {options.temperature, options.topP};
            long[] longs = {options.seed, options.deadlineNanos};
            Hearing hearing = options.onPiece == null ? null : new Hearing(options.onPiece);
            Answer[] answers = ask(id, texts, counts, features, drafts, numbers, fractions, longs, hearing);
            List<Answer> list = new ArrayList<>(answers.length);
            Collections.addAll(list, answers);
            return list;
        }

        /**
         * Stops the call that is using this session; callable from any thread. That call throws with {@link
         * #CANCELLED}, and so does every later call until {@link #resetCancel}.
         */
        public void cancel() {
            cancelSession(id, true);
        }

        /** Clears the request to cancel, so that later calls run again. */
        public void resetCancel() {
            cancelSession(id, false);
        }

        @Override
        void free(long id) {
            freeSession(id);
        }
    }

    /** How a watch works. */
    public static final class WatchOptions {
        /** Threads and memory of its session; the questions determine batch, promptTokens and newTokens. */
        public SessionOptions session = new SessionOptions();
        /** A record for every answer, not only for those that change something. */
        public boolean allAnswers = false;
        /** Frames come from a recording: rules go by their times, budget and latencies count from the call of frame. */
        public boolean recording = false;
    }

    /** Asks the same questions of the frames of one or several cameras, and turns the answers into events. */
    public static final class Watch extends Handle {
        private Watch(long id) {
            super(id);
        }

        /**
         * Takes a frame of camera number `camera`, in the order of the text, from 0, and returns what follows from it, oldest
         * record first. `timeNanos` is when it was exposed, on {@link #clockNanos}; 0 is now. Looks at the frame, asks what is
         * due, and returns when that is done or the budget of the text has passed. Pixels are as in {@link Session#encode}.
         * If it throws, the next call returns the records of answers that came before that.
         */
        public List<Record> frame(int camera, long timeNanos, int format, int width, int height, int rotation, int color,
                Plane... planes) {
            int[] numbers = {format, width, height, rotation, color};
            watchFrame(id, camera, timeNanos, numbers, buffers(planes), strides(planes));
            return waiting();
        }

        /** Ends all events, at the time of the last frame, and returns their records. Later frames may begin new ones. */
        public List<Record> end() {
            endWatch(id);
            return waiting();
        }

        /** Obeys a line: "ask", "ask NAME", "pause" or "resume". */
        public void command(String line) {
            commandWatch(id, bytes(line));
        }

        /** Gives a question another prompt, from the next frame on. */
        public void setPrompt(String question, String prompt) {
            promptWatch(id, bytes(question), bytes(prompt));
        }

        /** What it has done so far: pictures, encoded, answers, late, events, tokens, tokens that drafts had right. */
        public long[] counts() {
            return countWatch(id);
        }

        /**
         * Stops the call that is using this watch; callable from any thread. That call throws with {@link #CANCELLED}, and so
         * does every later call of {@link #frame} until {@link #resetCancel}.
         */
        public void cancel() {
            cancelWatch(id, true);
        }

        /** Clears the request to cancel, so that later frames are looked at again. */
        public void resetCancel() {
            cancelWatch(id, false);
        }

        private List<Record> waiting() {
            List<Record> list = new ArrayList<>();
            for (Record next = nextRecord(id); next != null; next = nextRecord(id)) list.add(next);
            return list;
        }

        @Override
        void free(long id) {
            freeWatch(id);
        }
    }

    /** Something that a watch tells: an answer, or the beginning or the end of an event. */
    public static final class Record {
        /** True for the beginning or the end of an event, false for an answer. */
        public final boolean isEvent;
        /** True for the beginning of an event. */
        public final boolean begins;
        /** Name of the camera. */
        public final String camera;
        /** Name of the question; its prompt if it has no name. */
        public final String question;
        /** Of an event: name of its rule; else empty. */
        public final String rule;
        /** Of an event: the same at its beginning and its end, and never given again; else empty. */
        public final String id;
        /** The answer; empty for events that {@link Watch#end} ended. */
        public final String text;
        /** Of an event about one object: its label; else empty. */
        public final String label;
        /** As `palmtop watch --json` prints it, without the end of the line. */
        public final String json;
        /** The frame's number among those of its camera, from 0. */
        public final long picture;
        /** When the frame was exposed, on {@link #clockNanos}. */
        public final long timeNanos;
        /** When the frame was exposed, in milliseconds since 1970. */
        public final long unixMillis;
        /** From the frame's exposure until this was known. */
        public final long latencyNanos;
        /** At the end of an event: how long it lasted; else 0. */
        public final long lastedNanos;
        /** Of an event about one object: its number; else 0. */
        public final long track;
        /** Of an answer to a question with `choose`: its likelihood; else -1. */
        public final float score;
        /** True if something is believed from now on that was not before. */
        public final boolean changed;
        /** The objects that the answer locates, in the question's zone. */
        public final List<Detection> objects;

        Record(byte[][] texts, long[] numbers, float score, Detection[] objects) {
            isEvent = numbers[0] == 2;
            begins = numbers[1] == 1;
            camera = text(texts[0]);
            question = text(texts[1]);
            rule = text(texts[2]);
            id = text(texts[3]);
            text = text(texts[4]);
            label = text(texts[5]);
            json = text(texts[6]);
            picture = numbers[2];
            timeNanos = numbers[3];
            unixMillis = numbers[4] / 1_000_000;
            latencyNanos = numbers[5];
            lastedNanos = numbers[6];
            track = numbers[7];
            changed = numbers[8] != 0;
            this.score = score;
            List<Detection> list = new ArrayList<>(objects.length);
            Collections.addAll(list, objects);
            this.objects = Collections.unmodifiableList(list);
        }

        @Override
        public String toString() {
            return json;
        }
    }

    /** An answer. */
    public static final class Answer {
        public final String text;
        public final int[] tokens;
        public final float[] probabilities;
        /** One of the STOP_ constants. */
        public final int stop;
        public final int promptTokens;
        public final float likelihood;
        /** Tokens that the draft had right, and that took no step of their own. */
        public final int acceptedDraftTokens;
        public final List<Detection> objects;

        Answer(byte[] text, int[] tokens, float[] probabilities, int stop, int promptTokens, float likelihood,
                int acceptedDraftTokens, Detection[] objects) {
            this.text = text(text);
            this.tokens = tokens;
            this.probabilities = probabilities;
            this.stop = stop;
            this.promptTokens = promptTokens;
            this.likelihood = likelihood;
            this.acceptedDraftTokens = acceptedDraftTokens;
            List<Detection> list = new ArrayList<>(objects.length);
            Collections.addAll(list, objects);
            this.objects = Collections.unmodifiableList(list);
        }
    }

    /** An object that an answer locates, in pixels of the upright picture; of several, the first. */
    public static final class Detection {
        public final String label;
        /** Likelihood of the label; -1 if there is no label. */
        public final float score;
        public final float xMin, yMin, xMax, yMax;
        /** Or null. */
        public final Mask mask;
        /** In records of a watch: the number that the object keeps from look to look; 0 if it has none yet. */
        public final long track;

        Detection(byte[] label, float score, float xMin, float yMin, float xMax, float yMax, Mask mask, long track) {
            this.label = text(label);
            this.score = score;
            this.xMin = xMin;
            this.yMin = yMin;
            this.xMax = xMax;
            this.yMax = yMax;
            this.mask = mask;
            this.track = track;
        }

        @Override
        public String toString() {
            return label + " " + score + " [" + xMin + ", " + yMin + ", " + xMax + ", " + yMax + "]";
        }
    }

    /** The rectangle of a mask and its pixels, row by row: 1 or 0. No pixel outside it is set. */
    public static final class Mask {
        public final int x, y, width, height;
        public final byte[] pixels;

        Mask(int x, int y, int width, int height, byte[] pixels) {
            this.x = x;
            this.y = y;
            this.width = width;
            this.height = height;
            this.pixels = pixels;
        }
    }

    /** An object that must be closed. */
    abstract static class Handle implements AutoCloseable {
        final long id;
        private boolean closed;

        Handle(long id) {
            this.id = id;
        }

        abstract void free(long id);

        /** Frees the object; a second call does nothing. Throws with {@link #BUSY} while a call is using the object. */
        @Override
        public synchronized void close() {
            if (closed) return;
            free(id);
            closed = true;
        }
    }

    /** The native side calls this for each piece. */
    static final class Hearing {
        private final PieceListener listener;

        Hearing(PieceListener listener) {
            this.listener = listener;
        }

        boolean piece(int prompt, byte[] text) {
            return listener.piece(prompt, text(text));
        }
    }

    /** Standard UTF-8 with a final zero; the JVM's own conversion gives modified UTF-8. */
    private static byte[] bytes(String text) {
        byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
        for (byte b : utf8) if (b == 0) throw new IllegalArgumentException("the text has a zero in it");
        return java.util.Arrays.copyOf(utf8, utf8.length + 1);
    }

    private static String text(byte[] utf8) {
        return new String(utf8, StandardCharsets.UTF_8);
    }

    private static native int abiVersion();

    private static native long clock();

    private static native long openModel(byte[] path);

    private static native long openModelFd(int fd, long offset, long length);

    private static native void freeModel(long model);

    private static native long[] planSession(long model, int[] options);

    private static native long newSession(long model, int[] options, int[] cores);

    private static native void freeSession(long session);

    private static native void cancelSession(long session, boolean cancel);

    private static native long newFeatures(long model);

    private static native void freeFeatures(long features);

    private static native void encodeFile(long session, long features, byte[] file, long deadline);

    private static native void encodePixels(
            long session, long features, int[] numbers, ByteBuffer[] planes, int[] strides, long deadline);

    private static native long newWatch(long model, byte[] questions, int[] options, int[] cores, int[] flags);

    private static native void freeWatch(long watch);

    private static native void watchFrame(
            long watch, int camera, long time, int[] numbers, ByteBuffer[] planes, int[] strides);

    private static native Record nextRecord(long watch);

    private static native void endWatch(long watch);

    private static native void commandWatch(long watch, byte[] line);

    private static native void promptWatch(long watch, byte[] question, byte[] prompt);

    private static native long[] countWatch(long watch);

    private static native void cancelWatch(long watch, boolean cancel);

    private static native Answer[] ask(long session, byte[][] prompts, int[] counts, long[] features, int[] drafts,
            int[] numbers, float[] fractions, long[] longs, Hearing hearing);
}
