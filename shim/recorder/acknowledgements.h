/*
 * Events that the program has read and not acknowledged (acknowledgements.c), while recorder_is_on.
 */
#ifndef USERDMA_ACKNOWLEDGEMENTS_H
#define USERDMA_ACKNOWLEDGEMENTS_H

#include "../protocol.h"
#include "recorder.h"

#include <infiniband/verbs.h>

/* Of functions.c: around the library's functions. */
int around_ibv_get_cq_event(int (*original)(struct ibv_comp_channel *, struct ibv_cq **, void **),
                            struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user);
void around_ibv_ack_cq_events(void (*original)(struct ibv_cq *, unsigned int), struct ibv_cq *cq, unsigned int count);
int around_ibv_get_async_event(int (*original)(struct ibv_context *, struct ibv_async_event *),
                               struct ibv_context *context, struct ibv_async_event *event);
void around_ibv_ack_async_event(void (*original)(struct ibv_async_event *), struct ibv_async_event *event);
/* Of librdmacm, whose header may be absent. */
struct rdma_event_channel;
struct rdma_cm_event;
int around_rdma_get_cm_event(int (*original)(struct rdma_event_channel *, struct rdma_cm_event **),
                             struct rdma_event_channel *channel, struct rdma_cm_event **event);

/* ---- of each library ---- */

/*
 * This thread is about to wait for an event of descriptor `fd`, and no longer waits. `kind`: USERDMA_WAIT_. `wait`:
 * what the first has returned; NULL: it is not noted. Preserve errno.
 */
void *note_wait_begins(uint32_t kind, int fd);
void note_wait_ends(void *wait);

/*
 * The caller acknowledges more events than it has read, with the arguments of the events of the same names
 * (PreloadEvents of src/spec/session.ts). `fd`: of the context.
 */
void note_overacknowledged(int fd, uint32_t cq, uint32_t acknowledged, uint32_t read, uint32_t other);
void note_async_overacknowledged(int fd, uint32_t queue, uint32_t number, uint32_t read);

#endif
