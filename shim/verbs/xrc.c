/*
 * XRC (IBA annex A14) for our contexts: rxe's provider lacks XRC, because Linux's rxe has no XRC.
 *
 * The provider can create initiators (IBV_QPT_XRC_SEND), and XRC SRQs of a given domain. It lacks domains, targets
 * (IBV_QPT_XRC_RECV), the number of an SRQ, and the SRQ number in send requests. These operations are added to the
 * context's public operation table, and make Linux's own calls.
 *
 * A target has no queues: its object is libibverbs' struct ibv_qp followed by zeros. So the provider, which modifies
 * and destroys the target, finds no rings to unmap. The receiver's SRQ number is in unused bits of a send request's
 * flags (src/spec/drivers/mapped-rings.ts). The provider copies the flags into the ring.
 *
 * Objects are allocated with calloc, as by a provider, and destroyed by the program.
 */
#define _GNU_SOURCE
#include "../check/check.h"

#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <string.h>

#include "verbs_ops.h"

/* Bytes of a target's object. The provider's struct of a queue pair is smaller. */
#define TARGET_BYTES 4096
/* Maximum work requests that are copied, to set the SRQ number in the flags, and posted at a time. */
#define MAX_BATCH 16
/* Bits of send_flags that verbs use. The SRQ number (24 bits) is above them. */
#define FLAGS_MASK 0xffu
#define SRQN_SHIFT 8

typedef struct ibv_xrcd *ibv_open_xrcd_function(struct ibv_context *, struct ibv_xrcd_init_attr *);

/* struct verbs_xrcd and struct verbs_srq of libibverbs' driver.h. */
#define VERBS_XRCD_HANDLE 1u
struct domain {
    struct ibv_xrcd xrcd;
    uint32_t comp_mask;
    uint32_t handle;
};
struct shared_queue {
    struct ibv_srq srq;
    enum ibv_srq_type type;
    void *xrcd;
    struct ibv_cq *cq;
    uint32_t number;
};

union target {
    struct ibv_qp qp;
    char bytes[TARGET_BYTES];
};

/* ib_uverbs_open_xrcd */
struct open_xrcd_command {
    struct ib_uverbs_cmd_hdr header;
    uint64_t response;
    int32_t fd;
    uint32_t flags;
};
/* ib_uverbs_close_xrcd */
struct close_xrcd_command {
    struct ib_uverbs_cmd_hdr header;
    uint32_t handle;
};
/* ib_uverbs_create_qp */
struct create_qp_command {
    struct ib_uverbs_cmd_hdr header;
    uint64_t response;
    uint64_t user_handle;
    uint32_t domain; /* pd_handle; for a target, the handle of the XRC domain */
    uint32_t queues[3]; /* handles of send CQ, receive CQ and SRQ: none */
    uint32_t cap[5]; /* struct ibv_qp_cap: no queues */
    uint8_t signal_all;
    uint8_t type;
    uint8_t reserved[2]; /* is_srq and reserved */
};
/* ib_uverbs_open_qp */
struct open_qp_command {
    struct ib_uverbs_cmd_hdr header;
    uint64_t response;
    uint64_t user_handle;
    uint32_t domain;
    uint32_t number;
    uint8_t type;
    uint8_t reserved[7];
};
_Static_assert(sizeof(struct open_xrcd_command) == 24, "layout");
_Static_assert(sizeof(struct create_qp_command) == 64, "layout");
_Static_assert(sizeof(struct open_qp_command) == 40, "layout");

/*
 * Makes the write command `number` (IB_USER_VERBS_CMD_…) of `size` bytes at `header`. Fills in the header. False with
 * errno if the command is refused.
 */
static bool command(int fd, struct ib_uverbs_cmd_hdr *header, size_t size, unsigned number, size_t response_bytes)
{
    header->command = number;
    header->in_words = (uint16_t)(size / 4);
    header->out_words = (uint16_t)(response_bytes / 4);
    return device_write(fd, header, size) == (ssize_t)size;
}

/* False with libibverbs' errno if `mask` has unknown attributes (`reserved` or above) or lacks `needed` ones. */
static bool has_attributes(uint32_t mask, uint32_t needed, uint32_t reserved)
{
    if (mask < reserved && (mask & needed) == needed)
        return true;
    errno = mask < reserved ? EINVAL : EOPNOTSUPP;
    return false;
}

static struct ibv_xrcd *open_xrcd(struct ibv_context *context, struct ibv_xrcd_init_attr *attributes)
{
    const uint32_t needed = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
    if (!has_attributes(attributes->comp_mask, needed, IBV_XRCD_INIT_ATTR_RESERVED))
        return NULL;
    struct domain *domain = calloc(1, sizeof *domain);
    if (!domain)
        return NULL;
    uint32_t handle = 0;
    struct open_xrcd_command open = {
        .response = (uintptr_t)&handle, .fd = attributes->fd, .flags = (uint32_t)attributes->oflags};
    if (!command(context->cmd_fd, &open.header, sizeof open, IB_USER_VERBS_CMD_OPEN_XRCD, sizeof handle)) {
        free(domain);
        return NULL;
    }
    domain->xrcd.context = context;
    domain->comp_mask = VERBS_XRCD_HANDLE;
    domain->handle = handle;
    return &domain->xrcd;
}

static int close_xrcd(struct ibv_xrcd *xrcd)
{
    struct domain *domain = (struct domain *)xrcd;
    struct close_xrcd_command close = {.handle = domain->handle};
    if (!command(xrcd->context->cmd_fd, &close.header, sizeof close, IB_USER_VERBS_CMD_CLOSE_XRCD, 0))
        return errno;
    free(domain);
    return 0;
}

static int get_srq_num(struct ibv_srq *srq, uint32_t *number)
{
    const struct shared_queue *queue = (const struct shared_queue *)srq;
    if (queue->type != IBV_SRQT_XRC)
        return EOPNOTSUPP;
    *number = queue->number;
    return 0;
}

/* Creates or opens a target by the command at `header`. Fills in `response` and `user_handle`. NULL with errno. */
static struct ibv_qp *add_target(struct ibv_context *context, void *qp_context, struct ib_uverbs_cmd_hdr *header,
                                  size_t size, unsigned number, uint64_t *response, uint64_t *user_handle)
{
    union target *target = calloc(1, sizeof *target);
    if (!target)
        return NULL;
    struct ib_uverbs_create_qp_resp created = {0};
    struct ibv_qp *qp = &target->qp;
    *response = (uintptr_t)&created;
    *user_handle = (uintptr_t)qp;
    if (!command(context->cmd_fd, header, size, number, sizeof created)) {
        free(target);
        return NULL;
    }
    qp->context = context;
    qp->qp_context = qp_context;
    qp->handle = created.qp_handle;
    qp->qp_num = created.qpn;
    qp->state = IBV_QPS_RESET;
    qp->qp_type = IBV_QPT_XRC_RECV;
    pthread_mutex_init(&qp->mutex, NULL);
    pthread_cond_init(&qp->cond, NULL);
    return qp;
}

struct ibv_qp *xrc_create_target(struct ibv_context *context, struct ibv_qp_init_attr_ex *attributes)
{
    if (!(attributes->comp_mask & IBV_QP_INIT_ATTR_XRCD)) {
        errno = EINVAL;
        return NULL;
    }
    struct create_qp_command create = {.domain = ((struct domain *)attributes->xrcd)->handle,
                                       .type = IBV_QPT_XRC_RECV};
    struct ibv_qp *qp = add_target(context, attributes->qp_context, &create.header, sizeof create,
                                   IB_USER_VERBS_CMD_CREATE_QP, &create.response, &create.user_handle);
    if (qp) { /* as by libibverbs: librdmacm registers memory in the domain of a target */
        qp->pd = attributes->pd;
        qp->send_cq = attributes->send_cq;
        qp->recv_cq = attributes->recv_cq;
        qp->srq = attributes->srq;
    }
    return qp;
}

static struct ibv_qp *open_qp(struct ibv_context *context, struct ibv_qp_open_attr *attributes)
{
    const uint32_t needed = IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_TYPE;
    if (!has_attributes(attributes->comp_mask, needed, IBV_QP_OPEN_ATTR_RESERVED))
        return NULL;
    void *qp_context = attributes->comp_mask & IBV_QP_OPEN_ATTR_CONTEXT ? attributes->qp_context : NULL;
    struct open_qp_command open = {.domain = ((struct domain *)attributes->xrcd)->handle,
                                   .number = attributes->qp_num,
                                   .type = (uint8_t)attributes->qp_type};
    struct ibv_qp *qp = add_target(context, qp_context, &open.header, sizeof open, IB_USER_VERBS_CMD_OPEN_QP,
                                    &open.response, &open.user_handle);
    if (qp)
        qp->state = IBV_QPS_UNKNOWN;
    return qp;
}

int xrc_post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                  struct ibv_send_wr **bad)
{
    if (!list)
        return original(qp, list, bad);
    while (list) {
        struct ibv_send_wr batch[MAX_BATCH];
        struct ibv_send_wr *first = list;
        int count = 0;
        for (; list && count < MAX_BATCH; list = list->next, count++) {
            batch[count] = *list;
            batch[count].send_flags &= FLAGS_MASK;
            batch[count].send_flags |= list->qp_type.xrc.remote_srqn << SRQN_SHIFT;
            batch[count].next = &batch[count + 1];
        }
        batch[count - 1].next = NULL;
        struct ibv_send_wr *refused = NULL;
        const int result = original(qp, batch, &refused);
        if (result) {
            for (const struct ibv_send_wr *before = batch; refused && before != refused; before++)
                first = first->next;
            if (bad)
                *bad = first;
            return result;
        }
    }
    return 0;
}

/* Whether a function is of a provider. Libraries with verbs_set_ops are libibverbs, this one and that of --host. */
static bool is_of_provider(const void *function)
{
    Dl_info file, setter;
    if (!dladdr(function, &file))
        return false;
    void *library = dlopen(file.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return false;
    const void *set_ops = dlsym(library, "verbs_set_ops");
    dlclose(library);
    return !set_ops || !dladdr(set_ops, &setter) || setter.dli_fbase != file.dli_fbase;
}

bool xrc_is_added(const struct ibv_context *context)
{
    const struct fd_entry *entry = fd_lookup(context->cmd_fd);
    return entry && !entry->has_xrc;
}

void xrc_add_operations(struct verbs_context *context)
{
    struct fd_entry *entry = fd_lookup(context->context.cmd_fd);
    if (is_of_provider((void *)context->open_xrcd))
        entry->has_xrc = true;
    if (entry->has_xrc)
        return;
    context->open_xrcd = open_xrcd;
    context->close_xrcd = close_xrcd;
    context->get_srq_num = get_srq_num;
    context->open_qp = open_qp;
}
