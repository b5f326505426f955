/*
 * Finding poll-in-handler: a CQ is polled in a signal handler.
 */
import { reportsEach } from '../detector.ts'

export const createHandlerDetector = reportsEach('polledInHandler', 'poll-in-handler', {}, (_event, cq) => ({
  text: `ibv_poll_cq on ${cq.name} is called in a signal handler`,
}))
