/*
 * The row of the finding send-buffer-changed.
 */

export const sendBufferChanged = {
  severity: 'warning',
  needs: ['check', 'accesses'],
  title: 'the buffer of a send was changed before its completion was polled, or that of a READ before its data came',
  why: "The device may read the buffer at any time until the completion, and again after a loss: the peer may receive old, new or mixed bytes (IBA 10.6). The buffer is compared at the post, at the fetch by the device, when the device has finished, and at the poll of the completion, or of that of a later request of the queue (for programs in TypeScript: at the fetch, and when the device has finished). A change after the device has finished is no finding if the peer has answered before the poll, if a device may have written the bytes, or if peers out of the checker's sight may write to the program's memory. The check covers a sample of the requests, and a sample of the bytes of messages above 4 KiB; with `--buffers all` it covers every byte of every request. A request that waits at its fence (IBV_SEND_FENCE) is not checked. The buffer of a READ is compared too, at its fetch and when the peer executes it: what the program has written there before the data came is overwritten, as if it has given the READ up and uses the buffer otherwise.",
  advice: 'leave the buffer alone until the completion is polled, or send from several buffers in turn',
  statuses: { SUCCESS: 5 },
} as const
