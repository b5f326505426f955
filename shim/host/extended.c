/*
 * Extended CQs and queue pairs: their functions are in the object itself. A queue pair's requests are built one by one
 * and posted by ibv_wr_complete. The provider's functions may differ between objects (mlx5 has one set for each type of
 * queue pair), so they are kept for each object.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <string.h>

/* A power of two. Further objects are not observed. */
#define OBJECTS 4096

/* The members that ibv_qp_ex has gained since rdma-core 42, after its last one. Present if the QP has the operation. */
struct newer {
    void (*wr_atomic_write)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, const void *value);
    void (*wr_flush)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, size_t length, uint8_t type, uint8_t level);
};
enum { WITH_FLUSH = 1 << 11, WITH_ATOMIC_WRITE = 1 << 12 };
/* ibv_wr_opcode of rdma-core 43 and newer. */
enum { OPCODE_FLUSH = 14, OPCODE_ATOMIC_WRITE = 15 };

/* The provider's functions of an object. Entries are reused when a new object has the address of an old one. */
static struct entry {
    const void *object;
    union {
        struct {
            struct ibv_qp_ex qp;
            struct newer newer;
        };
        struct ibv_cq_ex cq;
    };
} entries[OBJECTS];

static struct entry *entry_of(const void *object, bool adds)
{
    const uint32_t start = (uint32_t)(((uintptr_t)object >> 4) * 0x9e3779b1u) & (OBJECTS - 1);
    for (uint32_t i = 0; i < OBJECTS; i++) {
        struct entry *entry = &entries[(start + i) & (OBJECTS - 1)];
        const void *present = __atomic_load_n(&entry->object, __ATOMIC_ACQUIRE);
        if (LIKELY(present == object))
            return entry;
        if (present)
            continue;
        if (!adds)
            return NULL;
        if (__atomic_compare_exchange_n(&entry->object, &present, object, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ||
            present == object)
            return entry;
    }
    return NULL;
}

/* ---- polls ---- */

/* Queue pairs that go to ERR at the end of this thread's poll. */
static TLS struct {
    uint32_t count, qpns[USERDMA_OBSERVE_MAX_REQUESTS];
} failing;

/*
 * Fails the completion that a poll has found. Its queue pair goes to ERR at the end of the poll: a provider may hold a
 * lock until then.
 */
static void fail_completion(struct ibv_cq_ex *cq)
{
    struct userdma_polled_completion one = {cq->wr_id, cq->status == IBV_WC_SUCCESS ? cq->read_opcode(cq) : 0,
                                            cq->read_qp_num ? cq->read_qp_num(cq) : 0, cq->status, 0};
    struct userdma_completion_verdict verdict;
    if (ask_completions(ibv_cq_ex_to_cq(cq), &one, 1, &verdict) == 0 || verdict.status == 0)
        return;
    cq->status = verdict.status;
    if (verdict.fails && failing.count < USERDMA_OBSERVE_MAX_REQUESTS)
        failing.qpns[failing.count++] = one.qpn;
}

static int note_completion(struct ibv_cq_ex *cq, int result)
{
    if (result != 0)
        return result;
    const int saved = errno;
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        fail_completion(cq);
    struct {
        struct userdma_record record;
        struct userdma_poll_record poll;
        struct userdma_completion_record completion;
    } *made = record_begin(USERDMA_RECORD_POLL, sizeof *made);
    if (made) {
        made->poll = (struct userdma_poll_record){cq->context->cmd_fd, cq->handle, 1, 0};
        made->completion = (struct userdma_completion_record){
            .wr_id = cq->wr_id,
            .status = cq->status,
            .opcode = cq->status == IBV_WC_SUCCESS ? cq->read_opcode(cq) : 0,
            .vendor_err = cq->status == IBV_WC_SUCCESS ? 0 : cq->read_vendor_err(cq),
            .bytes = cq->status == IBV_WC_SUCCESS && cq->read_byte_len ? cq->read_byte_len(cq) : 0,
            .qpn = cq->read_qp_num ? cq->read_qp_num(cq) : 0,
            .flags = cq->status == IBV_WC_SUCCESS ? cq->read_wc_flags(cq) : 0,
        };
        record_end(made, sizeof *made);
    }
    errno = saved;
    return result;
}

static int start_poll(struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attributes)
{
    return note_completion(cq, entry_of(cq, false)->cq.start_poll(cq, attributes));
}

static int next_poll(struct ibv_cq_ex *cq)
{
    return note_completion(cq, entry_of(cq, false)->cq.next_poll(cq));
}

static void end_poll(struct ibv_cq_ex *cq)
{
    entry_of(cq, false)->cq.end_poll(cq);
    while (UNLIKELY(failing.count > 0))
        fail_queue_pair(cq->context, failing.qpns[--failing.count]);
}

void extended_cq(struct ibv_cq_ex *cq)
{
    struct entry *entry = entry_of(cq, true);
    if (!entry)
        return;
    entry->cq = *cq;
    cq->start_poll = start_poll;
    if (cq->next_poll)
        cq->next_poll = next_poll;
    cq->end_poll = end_poll;
}

/* ---- batches ---- */

/* The batch of this thread. A batch that another one interrupts, or that is too long, is posted without its first part. */
static TLS struct {
    const struct ibv_qp_ex *qp;
    uint32_t count, elements;
    struct userdma_request_record requests[USERDMA_OBSERVE_MAX_REQUESTS];
    struct userdma_element_record list[USERDMA_OBSERVE_MAX_REQUESTS];
    /* The first element of each request. */
    uint32_t first[USERDMA_OBSERVE_MAX_REQUESTS];
} batch;

static void note_batch(const struct ibv_qp_ex *qp)
{
    if (batch.qp != qp || batch.count == 0)
        return;
    const struct ibv_qp *base = &qp->qp_base;
    struct userdma_request_record *first =
        post_begin(base->context->cmd_fd, USERDMA_POST_SEND, base->qp_num, batch.count, batch.elements);
    if (first) {
        char *at = (char *)first;
        for (uint32_t i = 0; i < batch.count; i++) {
            const size_t bytes = batch.requests[i].elements * sizeof batch.list[0];
            memcpy(at, &batch.requests[i], sizeof batch.requests[i]);
            memcpy(at + sizeof batch.requests[i], &batch.list[batch.first[i]], bytes);
            at += sizeof batch.requests[i] + bytes;
        }
        char *record = (char *)first - sizeof(struct userdma_post_record) - sizeof(struct userdma_record);
        record_end(record, (size_t)(at - record));
    }
}

static void add_request(struct ibv_qp_ex *qp, int opcode, uint32_t rkey, uint64_t address)
{
    if (batch.qp != qp || batch.count == USERDMA_OBSERVE_MAX_REQUESTS) {
        note_batch(qp);
        batch.qp = qp;
        batch.count = batch.elements = 0;
    }
    batch.first[batch.count] = batch.elements;
    batch.requests[batch.count++] = (struct userdma_request_record){
        .wr_id = qp->wr_id, .opcode = opcode, .flags = qp->wr_flags, .rkey = rkey, .remote_address = address};
}

static void add_element(const struct ibv_qp_ex *qp, uint32_t lkey, uint64_t address, uint32_t length)
{
    if (batch.qp != qp || batch.count == 0 || batch.elements == USERDMA_OBSERVE_MAX_REQUESTS)
        return;
    batch.list[batch.elements++] = (struct userdma_element_record){address, length, lkey};
    batch.requests[batch.count - 1].elements++;
}

#define PROVIDER (entry_of(qp, false)->qp)

#define BUILDERS(X)                                                                                                    \
    X(wr_atomic_cmp_swp, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, address,                                                     \
      (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, uint64_t compare, uint64_t swap),                       \
      (qp, rkey, address, compare, swap))                                                                              \
    X(wr_atomic_fetch_add, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, address,                                                 \
      (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, uint64_t add), (qp, rkey, address, add))                \
    X(wr_bind_mw, IBV_WR_BIND_MW, rkey, 0,                                                                             \
      (struct ibv_qp_ex * qp, struct ibv_mw * mw, uint32_t rkey, const struct ibv_mw_bind_info *info),                 \
      (qp, mw, rkey, info))                                                                                            \
    X(wr_local_inv, IBV_WR_LOCAL_INV, rkey, 0, (struct ibv_qp_ex * qp, uint32_t rkey), (qp, rkey))                     \
    X(wr_rdma_read, IBV_WR_RDMA_READ, rkey, address, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address),         \
      (qp, rkey, address))                                                                                             \
    X(wr_rdma_write, IBV_WR_RDMA_WRITE, rkey, address, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address),       \
      (qp, rkey, address))                                                                                             \
    X(wr_rdma_write_imm, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, address,                                                    \
      (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, __be32 data), (qp, rkey, address, data))                \
    X(wr_send, IBV_WR_SEND, 0, 0, (struct ibv_qp_ex * qp), (qp))                                                       \
    X(wr_send_imm, IBV_WR_SEND_WITH_IMM, 0, 0, (struct ibv_qp_ex * qp, __be32 data), (qp, data))                       \
    X(wr_send_inv, IBV_WR_SEND_WITH_INV, rkey, 0, (struct ibv_qp_ex * qp, uint32_t rkey), (qp, rkey))                  \
    X(wr_send_tso, IBV_WR_TSO, 0, 0, (struct ibv_qp_ex * qp, void *header, uint16_t length, uint16_t mss),             \
      (qp, header, length, mss))

#define BUILDER(name, opcode, key, remote, parameters, arguments)                                                      \
    static void build_##name parameters                                                                                \
    {                                                                                                                  \
        add_request(qp, opcode, key, remote);                                                                          \
        PROVIDER.name arguments;                                                                                       \
    }
BUILDERS(BUILDER)

static void build_atomic_write(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, const void *value)
{
    add_request(qp, OPCODE_ATOMIC_WRITE, rkey, address);
    entry_of(qp, false)->newer.wr_atomic_write(qp, rkey, address, value);
}

static void build_flush(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, size_t length, uint8_t type,
                        uint8_t level)
{
    add_request(qp, OPCODE_FLUSH, rkey, address);
    entry_of(qp, false)->newer.wr_flush(qp, rkey, address, length, type, level);
}

static void set_sge(struct ibv_qp_ex *qp, uint32_t lkey, uint64_t address, uint32_t length)
{
    add_element(qp, lkey, address, length);
    PROVIDER.wr_set_sge(qp, lkey, address, length);
}

static void set_sge_list(struct ibv_qp_ex *qp, size_t count, const struct ibv_sge *list)
{
    for (size_t i = 0; i < count; i++)
        add_element(qp, list[i].lkey, list[i].addr, list[i].length);
    PROVIDER.wr_set_sge_list(qp, count, list);
}

static void set_ud_addr(struct ibv_qp_ex *qp, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
    if (batch.qp == qp && batch.count > 0) {
        batch.requests[batch.count - 1].dest_qpn = qpn;
        batch.requests[batch.count - 1].qkey = qkey;
    }
    PROVIDER.wr_set_ud_addr(qp, ah, qpn, qkey);
}

static void start(struct ibv_qp_ex *qp)
{
    batch.qp = qp;
    batch.count = batch.elements = 0;
    PROVIDER.wr_start(qp);
}

static void abort_batch(struct ibv_qp_ex *qp)
{
    batch.qp = NULL;
    PROVIDER.wr_abort(qp);
}

static int complete(struct ibv_qp_ex *qp)
{
    note_batch(qp);
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        faults_note(&qp->qp_base);
    uint32_t index;
    int error = MUST_ASK(USERDMA_ASK_POST) && batch.qp == qp
                    ? fault_of_posts(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, batch.count,
                                     &index)
                    : 0;
    if (UNLIKELY(error != 0))
        PROVIDER.wr_abort(qp);
    else
        error = PROVIDER.wr_complete(qp);
    if (UNLIKELY(error != 0) && batch.qp == qp)
        post_refused(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, batch.count, error);
    batch.qp = NULL;
    return error;
}

void extended_qp(struct ibv_qp_ex *qp, uint64_t operations)
{
    struct entry *entry = entry_of(qp, true);
    if (!entry)
        return;
    struct newer *newer = (struct newer *)(&qp->wr_abort + 1);
    entry->qp = *qp;
#define REPLACE(name, opcode, key, remote, parameters, arguments)                                                      \
    if (qp->name)                                                                                                      \
        qp->name = build_##name;
    BUILDERS(REPLACE)
    if (operations & WITH_ATOMIC_WRITE) {
        entry->newer.wr_atomic_write = newer->wr_atomic_write;
        newer->wr_atomic_write = build_atomic_write;
    }
    if (operations & WITH_FLUSH) {
        entry->newer.wr_flush = newer->wr_flush;
        newer->wr_flush = build_flush;
    }
    qp->wr_start = start;
    qp->wr_complete = complete;
    qp->wr_abort = abort_batch;
    qp->wr_set_sge = set_sge;
    qp->wr_set_sge_list = set_sge_list;
    if (qp->wr_set_ud_addr)
        qp->wr_set_ud_addr = set_ud_addr;
}

/* ---- functions of providers that create extended objects, around the tables ---- */

#define CREATES_QP(name)                                                                                               \
    EXPORT struct ibv_qp *name(struct ibv_context *context, struct ibv_qp_init_attr_ex *attributes, void *own,         \
                               uint32_t bytes);                                                                        \
    struct ibv_qp *name(struct ibv_context *context, struct ibv_qp_init_attr_ex *attributes, void *own,                \
                        uint32_t bytes)                                                                                \
    {                                                                                                                  \
        __typeof__(&name) original = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                                       \
        struct ibv_qp *qp = original ? original(context, attributes, own, bytes) : (errno = ENOSYS, NULL);             \
        if (qp && host_is_active && attributes->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)                           \
            extended_qp((struct ibv_qp_ex *)qp, attributes->send_ops_flags);                                           \
        return qp;                                                                                                     \
    }
CREATES_QP(mlx5dv_create_qp)
CREATES_QP(efadv_create_qp_ex)
CREATES_QP(hnsdv_create_qp)

#define CREATES_CQ(name)                                                                                               \
    EXPORT struct ibv_cq_ex *name(struct ibv_context *context, struct ibv_cq_init_attr_ex *attributes, void *own,      \
                                  uint32_t bytes);                                                                     \
    struct ibv_cq_ex *name(struct ibv_context *context, struct ibv_cq_init_attr_ex *attributes, void *own,             \
                           uint32_t bytes)                                                                             \
    {                                                                                                                  \
        __typeof__(&name) original = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                                       \
        struct ibv_cq_ex *cq = original ? original(context, attributes, own, bytes) : (errno = ENOSYS, NULL);          \
        if (cq && host_is_active)                                                                                      \
            extended_cq(cq);                                                                                           \
        return cq;                                                                                                     \
    }
CREATES_CQ(mlx5dv_create_cq)
CREATES_CQ(efadv_create_cq)
