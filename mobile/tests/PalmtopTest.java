import dev.palmtop.Palmtop;
import dev.palmtop.Palmtop.Answer;
import dev.palmtop.Palmtop.AnswerOptions;
import dev.palmtop.Palmtop.Features;
import dev.palmtop.Palmtop.Model;
import dev.palmtop.Palmtop.Plane;
import dev.palmtop.Palmtop.Record;
import dev.palmtop.Palmtop.Request;
import dev.palmtop.Palmtop.Session;
import dev.palmtop.Palmtop.SessionOptions;
import dev.palmtop.Palmtop.Watch;
import dev.palmtop.Palmtop.WatchOptions;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;

/** The real library on the JVM. Arguments: a model and a picture. Prints the answer to "caption en" for comparison: each token, the bits of its
 * probability, and the text. */
public final class PalmtopTest {
    interface Action {
        void run() throws Exception;
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    static void refused(int status, Action action) throws Exception {
        try {
            action.run();
        } catch (Palmtop.Error error) {
            check(error.status == status, "status " + error.status + " instead of " + status + ": " + error.getMessage());
            check(!error.getMessage().isEmpty(), "an error without words");
            return;
        }
        throw new AssertionError("not refused");
    }

    static boolean same(Answer a, Answer b) {
        return Arrays.equals(a.tokens, b.tokens) && Arrays.equals(a.probabilities, b.probabilities) && a.text.equals(b.text);
    }

    public static void main(String[] arguments) throws Exception {
        byte[] picture = Files.readAllBytes(Paths.get(arguments[1]));
        refused(7, () -> Model.open("/nowhere/Größe 😀"));
        refused(Palmtop.BAD_MODEL, () -> Model.open(arguments[1]));
        refused(Palmtop.INVALID_ARGUMENT, () -> Model.open(-1, 0, 0));
        SessionOptions limits = new SessionOptions();
        limits.batch = 2;
        limits.newTokens = 40;
        AnswerOptions greedy = new AnswerOptions();
        try (Model model = Model.open(arguments[0]); Session session = model.session(limits);
                Features features = model.features()) {
            check(model.plan(limits).sessionBytes > 0 && model.plan(limits).weightsBytes > 0, "a plan");
            session.encode(features, picture, 0);
            List<Answer> answers = session.answer(features, greedy, "caption en", "detect cat");
            check(answers.size() == 2 && answers.get(0).tokens.length > 0, "answers");
            check(answers.get(0).tokens.length == answers.get(0).probabilities.length, "probabilities");

            // Pieces are the answer.
            StringBuilder heard = new StringBuilder();
            AnswerOptions streaming = new AnswerOptions();
            streaming.onPiece = (prompt, text) -> {
                heard.append(text);
                return true;
            };
            Answer streamed = session.answer(features, streaming, "caption en").get(0);
            check(heard.toString().equals(streamed.text), "pieces");
            check(streamed.text.equals(answers.get(0).text), "a prompt alone");

            // A listener stops, throws, and meets a busy session.
            streaming.onPiece = (prompt, text) -> false;
            check(session.answer(features, streaming, "caption en").get(0).stop == Palmtop.STOP_CALLBACK, "stopped");
            streaming.onPiece = (prompt, text) -> {
                throw new IllegalStateException("of the listener");
            };
            try {
                session.answer(features, streaming, "caption en");
                throw new AssertionError("not thrown");
            } catch (IllegalStateException expected) {
                check(expected.getMessage().equals("of the listener"), "the listener's exception");
            }
            AtomicBoolean asked = new AtomicBoolean();
            streaming.onPiece = (prompt, text) -> {
                try {
                    refused(Palmtop.BUSY, () -> session.answer(features, greedy, "caption en"));
                    refused(Palmtop.BUSY, session::close);
                } catch (Exception other) {
                    throw new RuntimeException(other);
                }
                return asked.getAndSet(true);
            };
            session.answer(features, streaming, "caption en");
            check(asked.get(), "heard");

            // Deadlines, and a button on another thread.
            AnswerOptions late = new AnswerOptions();
            late.deadlineNanos = 1;
            refused(Palmtop.DEADLINE, () -> session.answer(features, late, "caption en"));
            late.deadlineNanos = Palmtop.clockNanos() + 3_600_000_000_000L;
            session.answer(features, late, "caption en");
            CountDownLatch begun = new CountDownLatch(1);
            Thread button = new Thread(() -> {
                try {
                    begun.await();
                } catch (InterruptedException e) {
                    throw new RuntimeException(e);
                }
                session.cancel();
            });
            button.start();
            streaming.onPiece = (prompt, text) -> {
                begun.countDown();
                try {
                    button.join();
                } catch (InterruptedException e) {
                    throw new RuntimeException(e);
                }
                return true;
            };
            refused(Palmtop.CANCELLED, () -> session.answer(features, streaming, "caption en"));
            refused(Palmtop.CANCELLED, () -> session.encode(features, picture, 0));
            session.resetCancel();

            // Pixels where they lie: the same samples in two layouts.
            int width = 96, height = 64;
            ByteBuffer luma = ByteBuffer.allocateDirect(width * height), pairs = ByteBuffer.allocateDirect(width * height / 2);
            ByteBuffer u = ByteBuffer.allocateDirect(width * height / 4), v = ByteBuffer.allocateDirect(width * height / 4);
            for (int i = 0; i < width * height; i++) luma.put(i, (byte) (i * 5));
            for (int i = 0; i < width * height / 4; i++) {
                u.put(i, (byte) (i * 3));
                v.put(i, (byte) (i * 11));
                pairs.put(2 * i, u.get(i)).put(2 * i + 1, v.get(i));
            }
            session.encode(features, Palmtop.NV12, width, height, 90, Palmtop.BT601_LIMITED, 0, new Plane(luma, width, 1),
                    new Plane(pairs, width, 2));
            int[] tokens = session.answer(features, greedy, "caption en").get(0).tokens;
            session.encode(features, Palmtop.YUV420, width, height, 90, Palmtop.BT601_LIMITED, 0, new Plane(luma, width, 1),
                    new Plane(u, width / 2, 1), new Plane(v, width / 2, 1));
            check(Arrays.equals(tokens, session.answer(features, greedy, "caption en").get(0).tokens), "layouts");
            refused(Palmtop.INVALID_ARGUMENT, () -> session.encode(features, Palmtop.NV12, width, height + 1, 0, 0, 0,
                    new Plane(luma, width, 1), new Plane(pairs, width, 2)));
            refused(Palmtop.INVALID_ARGUMENT, () -> session.encode(features, Palmtop.NV12, width, height, 0, 0, 0));
            refused(Palmtop.BAD_IMAGE, () -> session.encode(features, new byte[10], 0));
            refused(Palmtop.INVALID_ARGUMENT, () -> session.answer(features, greedy));
            refused(Palmtop.INVALID_ARGUMENT, () -> session.answer(features, greedy, "a", "b", "c"));
            refused(Palmtop.INVALID_ARGUMENT, () -> session.answer(features, greedy, new String[] {"<image> twice <image>"}));
            String[] many = new String[1000];
            Arrays.fill(many, "a");
            refused(Palmtop.INVALID_ARGUMENT, () -> session.answer(features, greedy, many));

            // Several pictures, in their order, and drafts, which change nothing but the time.
            SessionOptions wide = new SessionOptions();
            wide.batch = 2;
            wide.newTokens = 40;
            long bytes = model.plan(wide).sessionBytes;
            wide.pictures = 3;
            wide.draftTokens = 4;
            check(model.plan(wide).sessionBytes > bytes, "what several pictures take");
            try (Session film = model.session(wide); Features first = model.features(); Features second = model.features()) {
                film.encode(first, picture, 0);
                film.encode(second, Palmtop.GREY, width, height, 0, 0, 0, new Plane(luma, width, 1));
                Answer plain = film.answer(greedy, new Request("caption en", first, second)).get(0);
                check(plain.acceptedDraftTokens == 0 && plain.tokens.length > 5, "no draft");
                Answer turned = film.answer(greedy, new Request("caption en", second, first)).get(0);
                check(!Arrays.equals(plain.probabilities, turned.probabilities), "pictures have an order");
                Request drafted = new Request("caption en", first, second), single = new Request("caption en", first);
                drafted.draft = plain.tokens;
                List<Answer> both = film.answer(greedy, drafted, single);
                check(same(both.get(0), plain) && both.get(0).acceptedDraftTokens > 5, "a draft that is right");
                check(same(both.get(1), answers.get(0)), "one picture");
                drafted.draft = new int[] {-1, 3};
                single.draft = Arrays.copyOf(answers.get(0).tokens, 2);
                both = film.answer(greedy, drafted, single);
                check(same(both.get(0), plain) && both.get(0).acceptedDraftTokens == 0, "a draft that is wrong");
                check(same(both.get(1), answers.get(0)) && both.get(1).acceptedDraftTokens > 0, "the beginning of a draft");
                Features[] copies = new Features[300];
                Arrays.fill(copies, first);
                refused(Palmtop.INVALID_ARGUMENT, () -> film.answer(greedy, new Request("a")));
                refused(Palmtop.INVALID_ARGUMENT, () -> film.answer(greedy, new Request("a", copies)));
                refused(Palmtop.INVALID_ARGUMENT, () -> film.answer(greedy, new Request("a", copies), new Request("a", copies)));
                refused(Palmtop.INVALID_ARGUMENT, () -> film.answer(greedy, new Request[0]));
                Request[] too = new Request[300];
                Arrays.fill(too, single);
                refused(Palmtop.INVALID_ARGUMENT, () -> film.answer(greedy, too));
                refused(Palmtop.INVALID_ARGUMENT, () -> session.answer(greedy, new Request("a", first, second)));
                wide.filter = Palmtop.FILTER_BILINEAR_ALIASED;
                try (Session other = model.session(wide)) {
                    other.encode(first, picture, 0);
                    Answer resized = other.answer(greedy, new Request("caption en", first)).get(0);
                    check(!Arrays.equals(resized.probabilities, answers.get(0).probabilities), "another filter");
                }
                wide.filter = 4;
                refused(Palmtop.INVALID_ARGUMENT, () -> model.session(wide));
            }

            // A watch: its records are answers of the session, under the names of the questions.
            String questions = "max_new_tokens = 40\n[[question]]\nname = 'Größe 😀'\ncaption = 'en'\n"
                    + "[[question.rule]]\nname = 'any'\nmatches = '.*'\n[[camera]]\nname = 'a'\n[[camera]]\nname = 'b'";
            refused(Palmtop.INVALID_ARGUMENT, () -> model.watch("[[question]]", new WatchOptions()));
            session.encode(features, Palmtop.NV12, width, height, 90, Palmtop.BT601_LIMITED, 0, new Plane(luma, width, 1),
                    new Plane(pairs, width, 2));
            String text = session.answer(features, greedy, "caption en").get(0).text;
            try (Watch watch = model.watch(questions, new WatchOptions())) {
                long time = Palmtop.clockNanos();
                List<Record> told = watch.frame(1, time, Palmtop.NV12, width, height, 90, Palmtop.BT601_LIMITED,
                        new Plane(luma, width, 1), new Plane(pairs, width, 2));
                check(told.size() == 2, "an event and an answer: " + told);
                Record begins = told.get(0), answer = told.get(1);
                check(begins.isEvent && begins.begins && begins.rule.equals("any") && !begins.id.isEmpty(), "an event");
                check(!answer.isEvent && answer.text.equals(text) && answer.question.equals("Größe 😀"), "an answer: " + answer);
                check(answer.camera.equals("b") && answer.timeNanos == time && answer.picture == 0, "where and when");
                check(answer.changed && answer.score == -1 && answer.latencyNanos > 0 && answer.unixMillis > 0, "numbers");
                check(answer.json.contains("\"record\":\"answer\"") && answer.json.contains("Größe 😀"), answer.json);
                List<Record> ended = watch.end();
                check(ended.size() == 1 && ended.get(0).id.equals(begins.id) && !ended.get(0).begins, "its end");
                check(watch.counts()[0] == 1 && watch.counts()[2] == 1, "counts");
                watch.command("pause");
                watch.setPrompt("Größe 😀", "ocr");
                refused(Palmtop.INVALID_ARGUMENT, () -> watch.command("dance"));
                refused(Palmtop.INVALID_ARGUMENT, () -> watch.setPrompt("nobody", "ocr"));
                refused(Palmtop.INVALID_ARGUMENT, () -> watch.frame(2, 0, Palmtop.GREY, width, height, 0, 0, new Plane(luma, width, 1)));
                watch.command("resume");
                watch.cancel();
                refused(Palmtop.CANCELLED, () -> watch.frame(0, 0, Palmtop.GREY, width, height, 0, 0, new Plane(luma, width, 1)));
                watch.resetCancel();
                check(!watch.frame(0, 0, Palmtop.GREY, width, height, 0, 0, new Plane(luma, width, 1)).isEmpty(), "again");
            }

            // What was closed is refused.
            Features closed = model.features();
            closed.close();
            closed.close();
            refused(Palmtop.INVALID_HANDLE, () -> session.encode(closed, picture, 0));
            Watch over = model.watch(questions, new WatchOptions());
            over.close();
            refused(Palmtop.INVALID_HANDLE, over::end);

            PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8.name());
            Answer caption = answers.get(0);
            for (int i = 0; i < caption.tokens.length; i++)
                out.printf("%d:%08x ", caption.tokens[i], Float.floatToRawIntBits(caption.probabilities[i]));
            out.print(caption.text + "\n");
        }
    }
}
