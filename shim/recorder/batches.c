/*
 * The state of each queue pair's batch, from ibv_wr_start to ibv_wr_complete or ibv_wr_abort (ibv_wr_post(3)), and the
 * mistakes that it shows. Only the first mistake of a batch is reported: others follow from it.
 *
 * A batch is written only by the thread that has started it, which holds the provider's lock of the queue pair. Other
 * threads read `thread`, and find the queue pair, without a lock.
 */
#define _GNU_SOURCE
#include "batches.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "orders.h"
#include "slots.h"
#include "watched.h"

/* Reports of a process. */
#define MAX_REPORTS 1000

/* What was set for a request: bits. */
enum { HAS_DATA = 1, HAS_ADDRESS = 2 };

struct batch {
    const struct ibv_qp *qp;
    /* That has started the batch; 0: none is open. */
    pid_t thread;
    uint32_t requests;
    void *started_at;
    /* The last request: IBV_WR_…, the fields that its function has read, and what was set for it since. */
    int opcode;
    unsigned set, flags;
    uint64_t wr_id;
    void *added_at;
    bool is_told;
    /* An operation that send_ops_flags lacked was used. */
    bool is_lack_told;
    struct batch_sizes sizes;
    /* IBV_QP_EX_WITH_… */
    uint64_t operations;
    /* Of a driver's own type, whose provider has a setter of addresses: SRD. */
    bool has_address;
};

static struct watched table;
static struct batch batches[MAX_WATCHED];

static struct batch *batch_of(const struct ibv_qp *qp)
{
    const int index = watched_find(&table, qp);
    return LIKELY(index >= 0) ? &batches[index] : NULL;
}

/* The parent's threads do not exist in a child. */
IN_CHILD static void in_child(void)
{
    table.is_locked = 0;
    for (struct batch *batch = batches; batch < batches + MAX_WATCHED; batch++)
        batch->thread = 0;
}

static void begin(void)
{
    pthread_atfork(NULL, NULL, in_child);
    atexit(batches_exiting);
}

void batches_created(struct ibv_qp_ex *qp, uint64_t operations)
{
    static uint32_t has_begun;
    if (!__atomic_exchange_n(&has_begun, 1, __ATOMIC_RELAXED))
        begin();
    const int index = watched_begin(&table, &qp->qp_base);
    if (index < 0)
        return;
    batches[index] = (struct batch){.qp = &qp->qp_base,
                                    .operations = operations,
                                    .has_address = qp->qp_base.qp_type == IBV_QPT_DRIVER && qp->wr_set_ud_addr};
    watched_publish(&table, index, &qp->qp_base);
}

bool batches_operations(const struct ibv_qp *qp, uint64_t *operations)
{
    const struct batch *batch = batch_of(qp);
    if (batch)
        *operations = batch->operations;
    return batch != NULL;
}

void batches_destroyed(const struct ibv_qp *qp)
{
    watched_forget(&table, qp);
}

/* ---- reports ---- */

static void send_report(const struct ibv_qp *qp, struct userdma_batch_mistaken *mistake, void *since)
{
    static unsigned reports;
    const int saved = errno;
    if (__atomic_fetch_add(&reports, 1, __ATOMIC_RELAXED) < MAX_REPORTS) {
        mistake->number = qp->qp_num;
        mistake->since = since ? stack_at(since) : 0;
        note_batch_mistake(qp->context->cmd_fd, mistake);
    }
    errno = saved;
}

/* Reports a mistake with a batch. `opcode`: of the request that is meant, or -1. */
static void report(struct batch *batch, uint32_t kind, uint32_t call, int opcode, void *since)
{
    if (__atomic_exchange_n(&batch->is_told, true, __ATOMIC_RELAXED))
        return;
    struct userdma_batch_mistaken mistake = {
        .wr_id = opcode < 0 ? 0 : batch->wr_id,
        .mistake = kind,
        .called = call,
        .opcode = opcode,
        .requests = batch->requests,
    };
    send_report(batch->qp, &mistake, since);
}

/* The batch in which the thread may call `call`; NULL: there is none, and that was reported, or it is not watched. */
static struct batch *own_batch(const struct ibv_qp_ex *qp, uint32_t call, int opcode)
{
    struct batch *batch = batch_of(&qp->qp_base);
    if (!batch)
        return NULL;
    const pid_t thread = __atomic_load_n(&batch->thread, __ATOMIC_RELAXED);
    if (LIKELY(thread == threads_own()))
        return batch;
    if (thread != 0)
        report(batch, USERDMA_BATCH_MISTAKE_OTHER_THREAD, call, opcode, batch->started_at);
    else {
        struct userdma_batch_mistaken mistake = {
            .mistake = USERDMA_BATCH_MISTAKE_NOT_STARTED, .called = call, .opcode = opcode};
        /* A second call without a start follows from the first. */
        if (!__atomic_exchange_n(&batch->is_told, true, __ATOMIC_RELAXED))
            send_report(batch->qp, &mistake, batch->started_at);
    }
    return NULL;
}

/* ---- calls ---- */

void batches_starting(const struct ibv_qp_ex *qp)
{
    struct batch *batch = batch_of(&qp->qp_base);
    const pid_t thread = batch ? __atomic_load_n(&batch->thread, __ATOMIC_RELAXED) : 0;
    if (LIKELY(thread == 0))
        return;
    if (thread == threads_own()) {
        batch->is_told = false; /* the program hangs: this is said whatever was said before */
        report(batch, USERDMA_BATCH_MISTAKE_STARTED_AGAIN, USERDMA_BATCH_CALL_START, -1, batch->started_at);
    } else if (threads_has_left(thread)) {
        report(batch, USERDMA_BATCH_MISTAKE_OWNER_ENDED, USERDMA_BATCH_CALL_START, -1, batch->started_at);
    }
}

void batches_started(const struct ibv_qp_ex *qp, void *caller)
{
    struct batch *batch = batch_of(&qp->qp_base);
    if (!batch)
        return;
    batch->requests = 0;
    batch->started_at = caller;
    batch->opcode = -1;
    batch->is_told = false;
    batch->sizes = (struct batch_sizes){0};
    __atomic_store_n(&batch->thread, threads_own(), __ATOMIC_RELEASE);
    note_batch_started(batch->qp, caller);
}

void batches_posting(const struct ibv_qp *qp)
{
    struct batch *batch = batch_of(qp);
    if (batch && __atomic_load_n(&batch->thread, __ATOMIC_RELAXED) == threads_own()) {
        batch->is_told = false;
        report(batch, USERDMA_BATCH_MISTAKE_STARTED_AGAIN, USERDMA_BATCH_CALL_POST_SEND, -1, batch->started_at);
    }
}

/* Whether the operation has data. */
static bool has_data(int opcode)
{
    return opcode != IBV_WR_LOCAL_INV && opcode != IBV_WR_BIND_MW && opcode != OPCODE_FLUSH &&
           opcode != OPCODE_ATOMIC_WRITE;
}

/* Whether its data may be inline: of SEND and WRITE only (ibv_wr_post(3)). */
static bool may_be_inline(int opcode)
{
    return has_data(opcode) && opcode != IBV_WR_RDMA_READ && opcode != IBV_WR_ATOMIC_CMP_AND_SWP &&
           opcode != IBV_WR_ATOMIC_FETCH_AND_ADD;
}

/* The setter of an address that each request of the queue pair needs; 0: none. */
static uint32_t address_setter(const struct batch *batch)
{
    const enum ibv_qp_type type = batch->qp->qp_type;
    return type == IBV_QPT_UD || batch->has_address ? USERDMA_BATCH_CALL_SET_UD_ADDR
           : type == IBV_QPT_XRC_SEND               ? USERDMA_BATCH_CALL_SET_XRC_SRQN
                                                    : 0;
}

/* The last request gets no further setters. `call`: the call that ends it. */
static void check_request(struct batch *batch, uint32_t call)
{
    if (batch->opcode < 0)
        return;
    if (address_setter(batch) != 0 && has_data(batch->opcode) && !(batch->set & HAS_ADDRESS))
        report(batch, USERDMA_BATCH_MISTAKE_NO_ADDRESS, call, batch->opcode, batch->added_at);
    else if (has_data(batch->opcode) && !(batch->set & HAS_DATA))
        report(batch, USERDMA_BATCH_MISTAKE_NO_DATA, call, batch->opcode, batch->added_at);
}

void batches_added(const struct ibv_qp_ex *qp, int opcode, void *caller)
{
    struct batch *batch = own_batch(qp, USERDMA_BATCH_CALL_ADD, opcode);
    if (!batch)
        return;
    check_request(batch, USERDMA_BATCH_CALL_ADD);
    batch->requests++;
    batch->opcode = opcode;
    batch->set = 0;
    batch->flags = qp->wr_flags;
    batch->wr_id = qp->wr_id;
    batch->added_at = caller;
    /* The flag of an operation is bit `opcode`, to TSO. Newer functions are not wrapped without their flag. */
    if (UNLIKELY(opcode <= IBV_WR_TSO && !(batch->operations >> opcode & 1)) && !batch->is_lack_told) {
        batch->is_lack_told = true;
        struct userdma_batch_mistaken mistake = {
            .mistake = USERDMA_BATCH_MISTAKE_NOT_REQUESTED, .called = USERDMA_BATCH_CALL_ADD, .opcode = opcode, .wr_id = qp->wr_id};
        send_report(&qp->qp_base, &mistake, NULL);
    }
}

void batches_set(const struct ibv_qp_ex *qp, uint32_t call, uint32_t elements, uint64_t inline_bytes)
{
    struct batch *batch = own_batch(qp, call, -1);
    if (!batch)
        return;
    const bool is_address = call == USERDMA_BATCH_CALL_SET_UD_ADDR || call == USERDMA_BATCH_CALL_SET_XRC_SRQN;
    const bool is_inline = call == USERDMA_BATCH_CALL_SET_INLINE_DATA || call == USERDMA_BATCH_CALL_SET_INLINE_DATA_LIST;
    const unsigned bit = is_address ? HAS_ADDRESS : HAS_DATA;
    if (elements > batch->sizes.elements)
        batch->sizes.elements = elements;
    if (inline_bytes > batch->sizes.inline_bytes)
        batch->sizes.inline_bytes = inline_bytes;
    if (batch->opcode < 0) {
        report(batch, USERDMA_BATCH_MISTAKE_NO_REQUEST, call, -1, batch->started_at);
        return;
    }
    /* What a request of a driver's own type needs is its driver's matter. */
    const bool is_foreign = is_address && batch->qp->qp_type != IBV_QPT_DRIVER && call != address_setter(batch);
    if (is_address ? is_foreign
                   : !(is_inline ? may_be_inline(batch->opcode) : has_data(batch->opcode)))
        report(batch, USERDMA_BATCH_MISTAKE_WRONG_SETTER, call, batch->opcode, batch->added_at);
    else if (batch->set & bit)
        report(batch, USERDMA_BATCH_MISTAKE_SET_AGAIN, call, batch->opcode, batch->added_at);
    else if (qp->wr_id != batch->wr_id || qp->wr_flags != batch->flags)
        report(batch, USERDMA_BATCH_MISTAKE_FIELDS_LATE, call, batch->opcode, batch->added_at);
    batch->set |= bit;
}

struct batch_sizes batches_ending(const struct ibv_qp_ex *qp, uint32_t call)
{
    struct batch *batch = own_batch(qp, call, -1);
    if (!batch)
        return (struct batch_sizes){0};
    if (call == USERDMA_BATCH_CALL_COMPLETE)
        check_request(batch, call);
    batch->is_told = false;
    __atomic_store_n(&batch->thread, 0, __ATOMIC_RELEASE);
    note_batch_ended();
    return batch->sizes;
}

void batches_missing(const struct ibv_qp_ex *qp, uint32_t call, int opcode)
{
    struct userdma_batch_mistaken mistake = {
        .mistake = USERDMA_BATCH_MISTAKE_NO_FUNCTION, .called = call, .opcode = opcode, .wr_id = qp->wr_id};
    send_report(&qp->qp_base, &mistake, NULL);
}

void batches_destroying(const struct ibv_qp *qp)
{
    struct batch *batch = batch_of(qp);
    if (batch && __atomic_load_n(&batch->thread, __ATOMIC_RELAXED) != 0)
        report(batch, USERDMA_BATCH_MISTAKE_LEFT_OPEN, USERDMA_BATCH_CALL_DESTROY_QP, -1, batch->started_at);
}

void batches_exiting(void)
{
    for (int i = 0; i < MAX_WATCHED; i++) {
        struct batch *batch = table.objects[i] ? &batches[i] : NULL;
        const pid_t thread = batch ? __atomic_load_n(&batch->thread, __ATOMIC_RELAXED) : 0;
        /* A thread that is alive may still complete its batch. */
        if (thread != 0 && (thread == threads_own() || threads_has_left(thread)))
            report(batch, USERDMA_BATCH_MISTAKE_LEFT_OPEN, USERDMA_BATCH_CALL_EXIT, -1, batch->started_at);
    }
}
