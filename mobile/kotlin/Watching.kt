package dev.palmtop

import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.launch

/**
 * A frame for [records]. [release] is called once, when the frame has been looked at or a newer one has taken its place:
 * close the camera's picture there, as in `Frame(..., release = image::close)`. A frame that cannot be emitted, since the
 * collection has ended, stays with whoever emits it.
 */
class Frame(
    val format: Int,
    val width: Int,
    val height: Int,
    vararg val planes: Palmtop.Plane,
    val rotation: Int = 0,
    val color: Int = Palmtop.BT601_LIMITED,
    /** Number of the camera, in the order of the questions' text. */
    val camera: Int = 0,
    /** When it was exposed, on [Palmtop.clockNanos]; 0 is now. */
    val timeNanos: Long = 0,
    val release: () -> Unit = {},
)

/**
 * What the watch tells of [frames]. The newest frame wins: one that comes while the watch looks replaces the one before it.
 * When the frames end, so do all events. If the collection ends early, the look is cancelled within about the time of one
 * layer, and the watch can be used at once; [Palmtop.Watch.cancel] ends a flow that is being collected, too.
 *
 *     watch.records(frames).collect { println("${it.question}: ${it.text}") }
 */
fun Palmtop.Watch.records(frames: Flow<Frame>): Flow<Palmtop.Record> = flow {
    // Records wait between the look and whoever collects: a button that was pressed at the last ones was meant for them.
    resetCancel()
    try {
        coroutineScope {
            // The look holds its thread; what ends this scope must reach it from another one.
            val button = launch(Dispatchers.IO, CoroutineStart.UNDISPATCHED) {
                try {
                    awaitCancellation()
                } finally {
                    cancel()
                }
            }
            val newest = Channel<Frame>(Channel.CONFLATED, onUndeliveredElement = { it.release() })
            val capture = launch {
                frames.collect { newest.send(it) }
                newest.close()
            }
            try {
                for (frame in newest) {
                    val told = try {
                        with(frame) { frame(camera, timeNanos, format, width, height, rotation, color, *planes) }
                    } finally {
                        frame.release()
                    }
                    told.forEach { emit(it) }
                }
                end().forEach { emit(it) }
            } catch (error: Palmtop.Error) {
                if (error.status != Palmtop.CANCELLED) throw error
                // Cancelled by whoever collects, or by the button of the watch.
                ensureActive()
            } finally {
                newest.cancel()
                capture.cancel()
            }
            button.cancelAndJoin()
        }
    } finally {
        resetCancel()
    }
}.flowOn(Dispatchers.Default)
