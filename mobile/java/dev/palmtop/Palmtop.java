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
 * Objects may be used from any thread; a session by one at a time (else {@link Error#status} is {@link #BUSY}), except {@link
 * Session#cancel}. Whatever is used after it was closed throws; nothing crashes. The C header, palmtop.h, has the details.
 * Flows of Kotlin are in Flows.kt.
 */
public final class Palmtop {
    /** Forms of pixels, as in palmtop.h. */
    public static final int RGB = 1, BGR = 2, RGBA = 3, BGRA = 4, GREY = 5, NV12 = 6, NV21 = 7, YUV420 = 8;

    /** Meanings of luma and chroma. */
    public static final int BT601_LIMITED = 0, BT601_FULL = 1, BT709_LIMITED = 2, BT709_FULL = 3;

    /** Why an answer ended. */
    public static final int STOP_END = 0, STOP_LIMIT = 1, STOP_CANCELLED = 2, STOP_DEADLINE = 3, STOP_CALLBACK = 4;

    /** Some of the values of {@link Error#status}; all are in palmtop.h. */
    public static final int INVALID_ARGUMENT = 1, INVALID_HANDLE = 2, BUSY = 3, BAD_MODEL = 5, BAD_IMAGE = 6, CANCELLED = 10,
            DEADLINE = 11;

    /** The interface of the library that this class was written for. */
    private static final int ABI_VERSION = 1;

    static {
        System.loadLibrary("palmtop_jni");
        if (abiVersion() != ABI_VERSION) {
            throw new UnsatisfiedLinkError("libpalmtop has interface " + abiVersion() + ", this class is for " + ABI_VERSION);
        }
    }

    private Palmtop() {}

    /** What went wrong. */
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

    /** A model file in memory. */
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

        /** Memory and threads that answer. */
        public Session session(SessionOptions options) {
            return new Session(newSession(id, options.numbers(), options.cores));
        }

        /** Memory for a picture. */
        public Features features() {
            return new Features(newFeatures(id));
        }

        /** Bytes that a session would take, one picture's features included, and those of the weights, which are mapped. */
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

    /** What a session must be able to do. */
    public static final class SessionOptions {
        /** Prompts that are answered together. */
        public int batch = 1;
        /** Tokens of a prompt at most. */
        public int promptTokens = 256;
        /** Tokens of an answer at most. */
        public int newTokens = 256;
        /** Pixels of the longer side of a picture at most. */
        public int imageSide = 16384;
        /** How keys and values are kept: 0 as fits the model, 1 f32, 2 f16, 3 8 bits. */
        public int kv = 0;
        /** Threads that compute; 0: one for each physical core. */
        public int threads = 0;
        /** Niceness of the threads that are started, -20 to 19; 127: as it is. */
        public int nice = 127;
        /** Cores on which they run; none: any. */
        public int[] cores = {};

        private int[] numbers() {
            return new int[] {batch, promptTokens, newTokens, imageSide, kv, threads, nice};
        }
    }

    /** How to answer. */
    public static final class AnswerOptions {
        /** Tokens of an answer at most; 0: the session's. */
        public int maxNewTokens = 0;
        /** Only so many likeliest tokens; 0: all. */
        public int topK = 0;
        /** 0: always the likeliest token. */
        public float temperature = 0;
        /** Only the likeliest tokens that together have this probability; 0: all. */
        public float topP = 0;
        /** Of chance. */
        public long seed = 0;
        /** A time of {@link #clockNanos}; 0: none. */
        public long deadlineNanos = 0;
        /** Hears the pieces on the thread that asks; null: nobody. */
        public PieceListener onPiece = null;
    }

    /** Hears an answer as it arises. */
    public interface PieceListener {
        /** Whole characters of the answer to a prompt. Returns false to end that answer. */
        boolean piece(int prompt, String text);
    }

    /** What the image encoder saw in a picture. */
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

    /** Memory and threads that answer. */
    public static final class Session extends Handle {
        private Session(long id) {
            super(id);
        }

        /** Looks at the picture in a JPEG, PNG, WebP, BMP or GIF file. */
        public void encode(Features features, byte[] file, long deadlineNanos) {
            encodeFile(id, features.id, file, deadlineNanos);
        }

        /**
         * Looks at pixels where they lie. For android.media.Image of YUV_420_888: YUV420, its three planes, and
         * ImageInfo.getRotationDegrees().
         */
        public void encode(Features features, int format, int width, int height, int rotation, int color, long deadlineNanos,
                Plane... planes) {
            ByteBuffer[] buffers = new ByteBuffer[planes.length];
            int[] strides = new int[2 * planes.length];
            for (int i = 0; i < planes.length; i++) {
                buffers[i] = planes[i].buffer;
                strides[2 * i] = planes[i].rowStride;
                strides[2 * i + 1] = planes[i].pixelStride;
            }
            int[] numbers = {format, width, height, rotation, color};
            encodePixels(id, features.id, numbers, buffers, strides, deadlineNanos);
        }

        /** Answers prompts about a picture together. */
        public List<Answer> answer(Features features, AnswerOptions options, String... prompts) {
            byte[][] texts = new byte[prompts.length][];
            for (int i = 0; i < prompts.length; i++) texts[i] = bytes(prompts[i]);
            int[] numbers = {options.maxNewTokens, options.topK};
            float[] fractions = {options.temperature, options.topP};
            long[] longs = {options.seed, options.deadlineNanos};
            Hearing hearing = options.onPiece == null ? null : new Hearing(options.onPiece);
            Answer[] answers = ask(id, features.id, texts, numbers, fractions, longs, hearing);
            List<Answer> list = new ArrayList<>(answers.length);
            Collections.addAll(list, answers);
            return list;
        }

        /**
         * Stops the call that is using this session, from any thread: it throws with {@link #CANCELLED}, as do all later ones
         * until {@link #resetCancel}.
         */
        public void cancel() {
            cancelSession(id, true);
        }

        /** Makes calls possible again. */
        public void resetCancel() {
            cancelSession(id, false);
        }

        @Override
        void free(long id) {
            freeSession(id);
        }
    }

    /** An answer. */
    public static final class Answer {
        public final String text;
        public final int[] tokens;
        public final float[] probabilities;
        /** STOP_END and so on. */
        public final int stop;
        public final int promptTokens;
        public final float likelihood;
        public final List<Detection> objects;

        Answer(byte[] text, int[] tokens, float[] probabilities, int stop, int promptTokens, float likelihood,
                Detection[] objects) {
            this.text = text(text);
            this.tokens = tokens;
            this.probabilities = probabilities;
            this.stop = stop;
            this.promptTokens = promptTokens;
            this.likelihood = likelihood;
            List<Detection> list = new ArrayList<>(objects.length);
            Collections.addAll(list, objects);
            this.objects = Collections.unmodifiableList(list);
        }
    }

    /** An object that an answer locates, in pixels of the upright picture. */
    public static final class Detection {
        public final String label;
        /** Likelihood of the label; -1 without one. */
        public final float score;
        public final float xMin, yMin, xMax, yMax;
        /** Or null. */
        public final Mask mask;

        Detection(byte[] label, float score, float xMin, float yMin, float xMax, float yMax, Mask mask) {
            this.label = text(label);
            this.score = score;
            this.xMin = xMin;
            this.yMin = yMin;
            this.xMax = xMax;
            this.yMax = yMax;
            this.mask = mask;
        }

        @Override
        public String toString() {
            return label + " " + score + " [" + xMin + ", " + yMin + ", " + xMax + ", " + yMax + "]";
        }
    }

    /** The rectangle of the picture outside of which no pixel is set, and its pixels, row by row: 1 or 0. */
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

    /** Something to be closed. */
    abstract static class Handle implements AutoCloseable {
        final long id;
        private boolean closed;

        Handle(long id) {
            this.id = id;
        }

        abstract void free(long id);

        /** Frees it; a second time does nothing. Throws with {@link #BUSY} while a call is using it. */
        @Override
        public synchronized void close() {
            if (closed) return;
            free(id);
            closed = true;
        }
    }

    /** What the native side calls for each piece. */
    static final class Hearing {
        private final PieceListener listener;

        Hearing(PieceListener listener) {
            this.listener = listener;
        }

        boolean piece(int prompt, byte[] text) {
            return listener.piece(prompt, text(text));
        }
    }

    /** Plain UTF-8 with a zero behind it, which the JVM's own conversion is not. */
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

    private static native Answer[] ask(
            long session, long features, byte[][] prompts, int[] numbers, float[] fractions, long[] longs, Hearing hearing);
}
