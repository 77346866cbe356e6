package dev.palmtop

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.callbackFlow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.channels.Channel
import kotlin.concurrent.thread

/**
 * The answer to a prompt, piece by piece. Collecting the flow starts the computation on a thread of its own. If the
 * collection ends early, the computation is cancelled within about the time of one layer; [Palmtop.Session.cancel]
 * stops it too. The session can be used at once afterwards. The flow replaces `onPiece` of [options].
 *
 *     session.pieces(features, "caption en").collect { print(it) }
 */
fun Palmtop.Session.pieces(
    features: Palmtop.Features,
    prompt: String,
    options: Palmtop.AnswerOptions = Palmtop.AnswerOptions(),
): Flow<String> = pieces(Palmtop.Request(prompt, features), options)

/** The same of a request, which may be about several pictures, and have a draft. */
fun Palmtop.Session.pieces(
    request: Palmtop.Request,
    options: Palmtop.AnswerOptions = Palmtop.AnswerOptions(),
): Flow<String> = callbackFlow {
    val worker = thread(name = "palmtop-answer") {
        try {
            options.onPiece = Palmtop.PieceListener { _, text -> trySend(text).isSuccess }
            answer(options, request)
            close()
        } catch (error: Throwable) {
            close(error.takeUnless { it is Palmtop.Error && it.status == Palmtop.CANCELLED })
        }
    }
    awaitClose {
        cancel()
        worker.join()
        resetCancel()
    }
}.buffer(Channel.UNLIMITED).flowOn(Dispatchers.Default)
