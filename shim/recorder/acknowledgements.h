/*
 * Events that the program has read and not acknowledged (acknowledgements.c), while recorder_is_on.
 */
#ifndef USERDMA_ACKNOWLEDGEMENTS_H
#define USERDMA_ACKNOWLEDGEMENTS_H

#include "../protocol.h"
#include "recorder.h"

#include <infiniband/verbs.h>

/* ibv_get_cq_event and ibv_get_async_event have returned an event. */
void acknowledgements_cq_event(struct ibv_cq *cq);
void acknowledgements_async_event(const struct ibv_async_event *event);
/* Before ibv_ack_cq_events and ibv_ack_async_event. */
void acknowledgements_cq(const struct ibv_cq *cq, uint32_t acknowledged);
void acknowledgements_async(const struct ibv_async_event *event);

/* ---- of each library ---- */

/* Tells the reader of MISUSE_ACKNOWLEDGED, with the caller's stack. `fd`: of the context. */
void note_overacknowledged(int fd, const struct userdma_misuse *misuse);

#endif
