import dev.palmtop.Frame
import dev.palmtop.Palmtop
import dev.palmtop.records
import java.nio.ByteBuffer
import java.util.concurrent.CancellationException
import java.util.concurrent.atomic.AtomicBoolean
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull

const val WIDTH = 96
const val HEIGHT = 64

/** Frames that are counted when they come and when they are released. */
class Camera {
    val given = AtomicInteger()
    val released = AtomicInteger()
    private val luma = ByteBuffer.allocateDirect(WIDTH * HEIGHT)

    fun frames(count: Int, pauseMillis: Long = 0): Flow<Frame> = flow {
        repeat(count) {
            val plane = Palmtop.Plane(luma, WIDTH, 1)
            val isReleased = AtomicBoolean()
            val release = { check(!isReleased.getAndSet(true)) { "released twice" }; released.incrementAndGet(); Unit }
            given.incrementAndGet()
            try {
                emit(Frame(Palmtop.GREY, WIDTH, HEIGHT, plane, release = release))
            } catch (error: CancellationException) {
                // If the collection had ended before, the frame was not taken.
                if (!isReleased.get()) given.decrementAndGet()
                throw error
            }
            if (pauseMillis > 0) delay(pauseMillis)
        }
    }

    fun checkAllReleased() = check(given.get() == released.get()) { "${given.get()} frames, ${released.get()} released" }
}

/** The watch's flow over the real library. Argument: a model. */
fun main(arguments: Array<String>) = runBlocking {
    val questions = "max_new_tokens = 8\n[gate]\npixels = false\nfeatures = false\n[[question]]\nname = 'text'\nocr = true\n" +
        "[[question.rule]]\nname = 'any'\nmatches = ''"
    val options = Palmtop.WatchOptions().apply { allAnswers = true }
    Palmtop.Model.open(arguments[0]).use { model ->
        model.watch(questions, options).use { watch ->
            // The event begins with the first frame, and ends when there are no more.
            val camera = Camera()
            val told = watch.records(camera.frames(5)).toList()
            check(told.first().run { isEvent && begins && rule == "any" }) { "$told" }
            check(told.last().run { isEvent && !begins && id == told.first().id }) { "$told" }
            val answers = told.filter { !it.isEvent }
            check(answers.isNotEmpty() && answers.size <= 5 && answers.all { it.question == "text" }) { "$told" }
            check(answers.zipWithNext().all { (a, b) -> a.picture < b.picture && a.timeNanos < b.timeNanos }) { "$told" }
            camera.checkAllReleased()
            check(watch.counts()[0] == answers.size.toLong()) { "every frame that was given was answered" }

            // Whenever the collection ends, the watch can be used at once, and all frames have been released.
            for (millis in 0L..20L) {
                val other = Camera()
                withTimeoutOrNull(millis) { watch.records(other.frames(1000, 1)).toList() }
                check(watch.records(Camera().frames(1)).toList().any { !it.isEvent }) { "after $millis ms" }
                other.checkAllReleased()
            }
            val one = Camera()
            watch.records(one.frames(1000, 1)).first()
            one.checkAllReleased()

            // A button ends the flow.
            val pressed = Camera()
            watch.records(pressed.frames(1000, 1)).onEach { thread { watch.cancel() }.join() }.toList()
            pressed.checkAllReleased()
            watch.cancel()
            check(watch.records(Camera().frames(1)).toList().any { !it.isEvent }) { "after the button" }

            // What goes wrong is thrown where the flow is collected.
            val refused = runCatching { watch.records(flow { emit(Frame(Palmtop.NV12, 4, 4)) }).toList() }.exceptionOrNull()
            check(refused is Palmtop.Error && refused.status == Palmtop.INVALID_ARGUMENT) { "$refused" }
            val broken = runCatching { watch.records(flow { error("of the camera") }).toList() }.exceptionOrNull()
            check(broken is IllegalStateException && broken.message == "of the camera") { "$broken" }
        }
    }
    println("ok")
}
