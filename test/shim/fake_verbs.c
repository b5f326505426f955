/*
 * A replacement of libibverbs.so.1: it opens a device node and returns a context whose polling functions return
 * scripted results. It has only what the shim uses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdlib.h>

int fake_found; /* completions that each poll returns */
int fake_polls; /* polls so far */

static int poll_cq(struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
    (void)cq, (void)entries, (void)wc;
    fake_polls++;
    return fake_found;
}

static int start_poll(struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attributes)
{
    (void)cq, (void)attributes;
    fake_polls++;
    return fake_found ? 0 : ENOENT;
}

static struct ibv_cq_ex *create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attributes)
{
    (void)attributes;
    struct ibv_cq_ex *cq = calloc(1, sizeof *cq);
    cq->context = context;
    cq->start_poll = start_poll;
    return cq;
}

static struct ibv_context *context_of(int fd)
{
    struct verbs_context *context = calloc(1, sizeof *context);
    context->sz = sizeof *context;
    context->create_cq_ex = create_cq_ex;
    context->context.abi_compat = __VERBS_ABI_IS_EXTENDED;
    context->context.cmd_fd = fd;
    context->context.ops.poll_cq = poll_cq;
    return &context->context;
}

/* `device` is a path. */
struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    int fd = open((const char *)device, O_RDWR | O_CLOEXEC);
    return fd < 0 ? NULL : context_of(fd);
}

struct ibv_context *ibv_import_device(int fd)
{
    return context_of(fd);
}
