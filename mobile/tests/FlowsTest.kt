import dev.palmtop.Palmtop
import dev.palmtop.pieces
import java.io.File
import kotlin.concurrent.thread
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull

/** The flows over the real library. Arguments: a model and a picture. */
fun main(arguments: Array<String>) = runBlocking {
    val (path, picture) = arguments
    val limits = Palmtop.SessionOptions().apply { newTokens = 40 }
    Palmtop.Model.open(path).use { model ->
        model.session(limits).use { session ->
            model.features().use { features ->
                session.encode(features, File(picture).readBytes(), 0)
                val answer = session.answer(features, Palmtop.AnswerOptions(), "caption en")[0].text
                check(session.pieces(features, "caption en").toList().joinToString("") == answer) { "pieces" }

                val request = Palmtop.Request("caption en", features).apply { draft = intArrayOf(5, 7) }
                check(session.pieces(request).toList().joinToString("") == answer) { "pieces of a request" }

                // Whenever the collection ends, the session can be used at once.
                check(answer.startsWith(session.pieces(features, "caption en").first())) { "the first piece" }
                for (millis in 0L..20L) {
                    withTimeoutOrNull(millis) { session.pieces(features, "caption en").toList() }
                    check(session.answer(features, Palmtop.AnswerOptions(), "caption en")[0].text == answer) { "after $millis ms" }
                }

                // A button ends the flow. Pressed once more when all is computed, it would hold for what comes next.
                val begun = session.pieces(features, "caption en").onEach { thread { session.cancel() }.join() }.toList()
                check(answer.startsWith(begun.joinToString(""))) { "cancelled" }
                session.resetCancel()
                check(session.pieces(features, "caption en").toList().joinToString("") == answer) { "after the button" }

                // What goes wrong on the thread that computes is thrown where the flow is collected.
                val refused = runCatching { session.pieces(features, "<image> twice <image>").toList() }.exceptionOrNull()
                check(refused is Palmtop.Error && refused.status == Palmtop.INVALID_ARGUMENT) { "$refused" }
                val zero = runCatching { session.pieces(features, "a\u0000b").toList() }.exceptionOrNull()
                check(zero is IllegalArgumentException) { "$zero" }
            }
        }
    }
    println("ok")
}
