/*
 * Batches of requests that a program builds by ibv_wr_*, for `userdma check`: counts the requests since ibv_wr_start,
 * and records their memory. Only the functions of the first provider are wrapped. Batches of other providers have
 * unknown sizes.
 */
#define _GNU_SOURCE
#include "../shim.h"

#include <infiniband/verbs.h>

#include "../verbs/verbs_ops.h"
#include "outstanding.h"

/*
 * Members of ibv_qp_ex after `wr_abort`, which old headers lack. A queue pair has a member only if it was created with
 * IBV_QP_EX_WITH_FLUSH or _ATOMIC_WRITE.
 */
struct newer_ops {
    void (*wr_atomic_write)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, const void *value);
    void (*wr_flush)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, size_t length, uint8_t type, uint8_t level);
};
enum { WITH_FLUSH = 1 << 11, WITH_ATOMIC_WRITE = 1 << 12 };

/* The provider's functions. */
static struct ibv_qp_ex provider;
static struct newer_ops newer_provider;
/* The queue pair whose batch this thread builds, and the number of requests in it. */
static __thread const struct ibv_qp_ex *batch_qp __attribute__((tls_model("initial-exec")));
static __thread uint32_t batch_requests __attribute__((tls_model("initial-exec")));

/* `sends`: the device sends the bytes of the request's elements. */
static void count_request(const struct ibv_qp_ex *qp, bool sends)
{
    if (batch_qp == qp)
        batch_requests++;
    else
        batch_qp = NULL; /* this thread builds batches of two queue pairs: their sizes are unknown */
    outstanding_built(qp, sends);
}

#define BUILDERS(X)                                                                                                    \
    X(wr_atomic_cmp_swp, false, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, uint64_t compare, uint64_t swap),    \
      (qp, rkey, address, compare, swap))                                                                              \
    X(wr_atomic_fetch_add, false, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, uint64_t add),                     \
      (qp, rkey, address, add))                                                                                        \
    X(wr_bind_mw, false, (struct ibv_qp_ex * qp, struct ibv_mw * mw, uint32_t rkey, const struct ibv_mw_bind_info *info),     \
      (qp, mw, rkey, info))                                                                                            \
    X(wr_local_inv, false, (struct ibv_qp_ex * qp, uint32_t rkey), (qp, rkey))                                                \
    X(wr_rdma_read, false, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address), (qp, rkey, address))                     \
    X(wr_rdma_write, true, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address), (qp, rkey, address))                    \
    X(wr_rdma_write_imm, true, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, __be32 data),                        \
      (qp, rkey, address, data))                                                                                       \
    X(wr_send, true, (struct ibv_qp_ex * qp), (qp))                                                                          \
    X(wr_send_imm, true, (struct ibv_qp_ex * qp, __be32 data), (qp, data))                                                   \
    X(wr_send_inv, true, (struct ibv_qp_ex * qp, uint32_t rkey), (qp, rkey))                                                 \
    X(wr_send_tso, false, (struct ibv_qp_ex * qp, void *header, uint16_t length, uint16_t mss), (qp, header, length, mss))

#define BUILDER(name, sends, parameters, arguments)                                                                           \
    static void count_##name parameters                                                                                \
    {                                                                                                                  \
        count_request(qp, sends);                                                                                      \
        provider.name arguments;                                                                                       \
    }
BUILDERS(BUILDER)

static void set_sge(struct ibv_qp_ex *qp, uint32_t lkey, uint64_t address, uint32_t length)
{
    const struct ibv_sge element = {.addr = address, .length = length, .lkey = lkey};
    outstanding_elements(qp, &element, 1, (uintptr_t)__builtin_dwarf_cfa());
    provider.wr_set_sge(qp, lkey, address, length);
}

static void set_sge_list(struct ibv_qp_ex *qp, size_t count, const struct ibv_sge *list)
{
    outstanding_elements(qp, list, count, (uintptr_t)__builtin_dwarf_cfa());
    provider.wr_set_sge_list(qp, count, list);
}

static void abort_batch(struct ibv_qp_ex *qp)
{
    outstanding_refused(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, batch_size(qp));
    provider.wr_abort(qp);
}

static void start_batch(struct ibv_qp_ex *qp)
{
    batch_qp = qp;
    batch_requests = 0;
    provider.wr_start(qp);
}

static void count_atomic_write(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, const void *value)
{
    count_request(qp, false);
    newer_provider.wr_atomic_write(qp, rkey, address, value);
}

static void count_flush(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, size_t length, uint8_t type,
                        uint8_t level)
{
    count_request(qp, false);
    newer_provider.wr_flush(qp, rkey, address, length, type, level);
}

void batch_watch(struct ibv_qp_ex *qp, uint64_t operations)
{
    struct newer_ops *newer = (struct newer_ops *)(&qp->wr_abort + 1);
#define IS_OTHER(name, sends, parameters, arguments) || (qp->name && provider.name && qp->name != provider.name)
    const bool is_other_provider = (provider.wr_start && provider.wr_start != qp->wr_start) BUILDERS(IS_OTHER);
    if (is_other_provider)
        return;
#define REPLACE(name, sends, parameters, arguments)                                                                           \
    if (qp->name) {                                                                                                    \
        provider.name = qp->name;                                                                                      \
        qp->name = count_##name;                                                                                       \
    }
    BUILDERS(REPLACE)
    if (operations & WITH_ATOMIC_WRITE) {
        newer_provider.wr_atomic_write = newer->wr_atomic_write;
        newer->wr_atomic_write = count_atomic_write;
    }
    if (operations & WITH_FLUSH) {
        newer_provider.wr_flush = newer->wr_flush;
        newer->wr_flush = count_flush;
    }
    provider.wr_start = qp->wr_start;
    provider.wr_abort = qp->wr_abort;
    provider.wr_set_sge = qp->wr_set_sge;
    provider.wr_set_sge_list = qp->wr_set_sge_list;
    qp->wr_start = start_batch;
    qp->wr_abort = abort_batch;
    qp->wr_set_sge = set_sge;
    qp->wr_set_sge_list = set_sge_list;
}

uint32_t batch_size(const struct ibv_qp_ex *qp)
{
    return batch_qp == qp ? batch_requests : 0;
}
