/*
 * Calls of uverbs without libibverbs, whose provider would refuse some of them: ioctls, and write commands within
 * INVOKE_WRITE.
 */
#ifndef UVERBS_CALLS_H
#define UVERBS_CALLS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <rdma/rdma_user_rxe.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define PAGE 4096
#define EXTENDED 0x80000000u /* IB_USER_VERBS_CMD_FLAG_EXTENDED */
#define NO_HANDLE 999        /* no object has this handle */
/* Of Linux's <rdma/ib_verbs.h>: the user-space headers lack them. */
enum { IB_MR_REREG_TRANS = 1, IB_MR_REREG_PD = 2, IB_MR_REREG_ACCESS = 4, IB_SRQ_LIMIT = 2 };
#define LENGTH(array) (sizeof(array) / sizeof *(array))

static int device = -1;

UNUSED static const char *name_of(int error)
{
    return error == 0 ? "OK" : strerrorname_np(error);
}

/* Prints a call and its result, an errno or 0; returns the result. */
__attribute__((format(printf, 2, 3))) static int step(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" = %s\n", name_of(error));
    fflush(stdout);
    return error;
}

UNUSED static void take_no_arguments(int argc, char **argv)
{
    if (argc == 1)
        return;
    fprintf(stderr, "usage: %s\n", argv[0]);
    exit(1);
}

/* A function below that returns `int` makes one call, and returns its errno, or 0. */

/* ---- ioctl ---- */

struct message {
    struct ib_uverbs_ioctl_hdr header;
    struct ib_uverbs_attr attributes[20];
};

UNUSED static struct message begin(int object, int method)
{
    return (struct message){.header = {.object_id = object, .method_id = method, .driver_id = RDMA_DRIVER_RXE}};
}

/* Adds an object handle (length 0), an input of at most 8 bytes, or the address of any other memory. */
UNUSED static struct ib_uverbs_attr *add(struct message *message, int id, int length, uint64_t data)
{
    struct ib_uverbs_attr *attribute = &message->attributes[message->header.num_attrs++];
    *attribute =
        (struct ib_uverbs_attr){.attr_id = id, .len = length, .flags = UVERBS_ATTR_F_MANDATORY, .data = data};
    return attribute;
}

UNUSED static void add_pointer(struct message *message, int id, const void *memory, int length)
{
    add(message, id, length, (uintptr_t)memory);
}

/* Inputs of at most 8 bytes are within the attribute. */
UNUSED static void add_in(struct message *message, int id, const void *memory, int length)
{
    uint64_t data = (uintptr_t)memory;
    if (length <= 8) {
        data = 0;
        memcpy(&data, memory, length);
    }
    add(message, id, length, data);
}

UNUSED static int call(struct message *message)
{
    message->header.length = sizeof message->header + message->header.num_attrs * sizeof *message->attributes;
    return ioctl(device, RDMA_VERBS_IOCTL, message) < 0 ? errno : 0;
}

/* ---- write commands, by INVOKE_WRITE ---- */

/* `driver`: memory for the driver's response, if `driver_length` is not 0. */
UNUSED static int invoke(uint32_t command, const void *in, int in_length, void *out, int out_length, void *driver,
                  int driver_length)
{
    struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE);
    if (in_length > 0)
        add_in(&message, UVERBS_ATTR_CORE_IN, in, in_length);
    if (out_length > 0)
        add_pointer(&message, UVERBS_ATTR_CORE_OUT, out, out_length);
    add(&message, UVERBS_ATTR_WRITE_CMD, 8, command);
    if (driver_length > 0)
        add_pointer(&message, UVERBS_ATTR_UHW_OUT, driver, driver_length);
    return call(&message);
}

#define INVOKE(command, in, out) invoke(command, &(in), sizeof(in), &(out), sizeof(out), NULL, 0)
#define INVOKE_WITH_DRIVER(command, in, out, driver)                                                                   \
    invoke(command, &(in), sizeof(in), &(out), sizeof(out), &(driver), sizeof(driver))
#define INVOKE_NO_OUT(command, in) invoke(command, &(in), sizeof(in), NULL, 0, NULL, 0)

UNUSED static void open_device(void)
{
    if (device >= 0)
        close(device);
    device = open("/dev/infiniband/uverbs0", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        perror("/dev/infiniband/uverbs0");
        exit(1);
    }
}

UNUSED static void open_context(void)
{
    open_device();
    struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_GET_CONTEXT);
    uint32_t vectors = 0;
    uint64_t support = 0;
    add_pointer(&message, UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS, &vectors, sizeof vectors);
    add_pointer(&message, UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT, &support, sizeof support);
    int error = call(&message);
    if (error != 0) {
        printf("GET_CONTEXT: %s\n", name_of(error));
        exit(1);
    }
}

/* ---- objects ---- */

/* For memory regions; the program maps them. */
static uint8_t *pages;

UNUSED static uint32_t alloc_pd(void)
{
    struct ib_uverbs_alloc_pd in = {0};
    struct ib_uverbs_alloc_pd_resp out = {0};
    int error = INVOKE(IB_USER_VERBS_CMD_ALLOC_PD, in, out);
    if (error != 0)
        step(error, "ALLOC_PD");
    return out.pd_handle;
}

UNUSED static int reg_mr(uint32_t pd, uint64_t start, uint64_t length, uint64_t iova, uint32_t access, uint32_t *handle)
{
    struct ib_uverbs_reg_mr in = {
        .start = start, .length = length, .hca_va = iova, .pd_handle = pd, .access_flags = access};
    struct ib_uverbs_reg_mr_resp out = {0};
    int error = INVOKE(IB_USER_VERBS_CMD_REG_MR, in, out);
    *handle = out.mr_handle;
    return error;
}

UNUSED static void dereg_mr(uint32_t handle)
{
    struct message message = begin(UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY);
    add(&message, UVERBS_ATTR_DESTROY_MR_HANDLE, 0, handle);
    int error = call(&message);
    if (error != 0)
        step(error, "  MR_DESTROY");
}

UNUSED static uint64_t pages_address(void)
{
    return (uintptr_t)pages;
}

/* Of the last created completion queue and queue pair. */
static struct rxe_create_cq_resp cq_queue;
static struct rxe_create_qp_resp qp_queues;
static uint32_t qp_number;

/* `channel`, `flags`: -1 for none. */
UNUSED static int cq_create(uint32_t cqe, uint32_t vector, int channel, int64_t flags, uint32_t *handle)
{
    uint32_t granted_cqe = 0;
    struct message message = begin(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_CREATE);
    struct ib_uverbs_attr *created = add(&message, UVERBS_ATTR_CREATE_CQ_HANDLE, 0, 0);
    add(&message, UVERBS_ATTR_CREATE_CQ_CQE, 4, cqe);
    add(&message, UVERBS_ATTR_CREATE_CQ_USER_HANDLE, 8, 77);
    if (channel >= 0)
        add(&message, UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL, 0, channel);
    add(&message, UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, 4, vector);
    if (flags >= 0)
        add(&message, UVERBS_ATTR_CREATE_CQ_FLAGS, 4, (uint32_t)flags);
    add_pointer(&message, UVERBS_ATTR_CREATE_CQ_RESP_CQE, &granted_cqe, sizeof granted_cqe);
    add_pointer(&message, UVERBS_ATTR_UHW_OUT, &cq_queue, sizeof cq_queue);
    int error = call(&message);
    *handle = (uint32_t)created->data;
    return error;
}

UNUSED static uint32_t some_cq(void)
{
    uint32_t handle;
    int error = cq_create(10, 0, -1, -1, &handle);
    if (error != 0)
        step(error, "  CQ_CREATE");
    return handle;
}

/* The attributes of QP_CREATE; -1: absent. */
struct qp_spec {
    uint64_t type;
    int64_t pd, send_cq, recv_cq, srq, xrcd, ind_table;
    int64_t flags, source_qpn;
    struct ib_uverbs_qp_cap cap;
};

UNUSED static int qp_create(const struct qp_spec *spec, uint32_t *handle)
{
    uint32_t number = 0;
    struct ib_uverbs_qp_cap cap = spec->cap;
    struct message message = begin(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_CREATE);
    struct ib_uverbs_attr *created = add(&message, UVERBS_ATTR_CREATE_QP_HANDLE, 0, 0);
    if (spec->xrcd >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_XRCD_HANDLE, 0, spec->xrcd);
    if (spec->pd >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_PD_HANDLE, 0, spec->pd);
    if (spec->srq >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_SRQ_HANDLE, 0, spec->srq);
    if (spec->send_cq >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE, 0, spec->send_cq);
    if (spec->recv_cq >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE, 0, spec->recv_cq);
    if (spec->ind_table >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_IND_TABLE_HANDLE, 0, spec->ind_table);
    add(&message, UVERBS_ATTR_CREATE_QP_USER_HANDLE, 8, 7);
    add_pointer(&message, UVERBS_ATTR_CREATE_QP_CAP, &cap, sizeof cap);
    add(&message, UVERBS_ATTR_CREATE_QP_TYPE, 8, spec->type);
    if (spec->flags >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_FLAGS, 4, spec->flags);
    if (spec->source_qpn >= 0)
        add(&message, UVERBS_ATTR_CREATE_QP_SOURCE_QPN, 4, spec->source_qpn);
    add_pointer(&message, UVERBS_ATTR_CREATE_QP_RESP_CAP, &cap, sizeof cap);
    add_pointer(&message, UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, &number, sizeof number);
    add_pointer(&message, UVERBS_ATTR_UHW_OUT, &qp_queues, sizeof qp_queues);
    int error = call(&message);
    *handle = (uint32_t)created->data;
    qp_number = number;
    return error;
}

/* Without optional attributes. */
UNUSED static struct qp_spec spec_of(uint64_t type, uint32_t pd, uint32_t cq)
{
    return (struct qp_spec){.type = type,
                            .pd = pd,
                            .send_cq = cq,
                            .recv_cq = cq,
                            .srq = -1,
                            .xrcd = -1,
                            .ind_table = -1,
                            .flags = -1,
                            .source_qpn = -1,
                            .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
}

#endif
