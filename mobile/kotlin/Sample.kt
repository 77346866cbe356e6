import dev.palmtop.Palmtop
import dev.palmtop.pieces
import java.io.File
import kotlinx.coroutines.runBlocking

/** Describes a picture: Sample MODEL PICTURE */
fun main(arguments: Array<String>) {
    val (path, picture) = arguments
    Palmtop.Model.open(path).use { model ->
        model.session(Palmtop.SessionOptions()).use { session ->
            model.features().use { features ->
                session.encode(features, File(picture).readBytes(), 0)
                runBlocking { session.pieces(features, "caption en").collect { print(it) } }
                println()
                for (answer in session.answer(features, Palmtop.AnswerOptions(), "detect cat")) println(answer.objects)
            }
        }
    }
}
