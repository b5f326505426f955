/*
 * The row of the finding events-overacknowledged.
 */

export const eventsOveracknowledged = {
  severity: 'warning',
  needs: ['check', 'preload'],
  title: 'more events were acknowledged than were read',
  why: 'libibverbs counts the events that were acknowledged of each CQ, queue pair and SRQ, and the destroy of the object waits until this count is the number of events that were read (ibv_get_cq_event(3), ibv_get_async_event(3)): with a larger count ibv_destroy_cq does not return. If the event was of another object, the destroy of that one waits too.',
  advice: 'acknowledge each event once, with the CQ that ibv_get_cq_event has returned, or a sum of its events at once',
} as const
