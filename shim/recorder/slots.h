/*
 * Wrappers of providers' functions. Each different function of a provider gets a numbered slot, with a wrapper of its
 * own, so a call needs no lookup: SLOTS_OF(name) makes the wrappers, which call `name`, a function with the provider's
 * function before its own parameters; and WRAP(function, name) replaces a provider's function.
 */
#ifndef USERDMA_SLOTS_H
#define USERDMA_SLOTS_H

#include <infiniband/verbs.h>

/* Maximum different functions of one kind in a program: those of its providers, and libibverbs' own. */
#define SLOTS 8

/* By name: the type, the parameters and the arguments. */
#define FUNCTION_poll_cq int, (struct ibv_cq * cq, int entries, struct ibv_wc *wc), (cq, entries, wc)
#define FUNCTION_req_notify_cq int, (struct ibv_cq * cq, int solicited), (cq, solicited)
#define FUNCTION_post_send                                                                                             \
    int, (struct ibv_qp * qp, struct ibv_send_wr *list, struct ibv_send_wr **bad), (qp, list, bad)
#define FUNCTION_post_recv                                                                                             \
    int, (struct ibv_qp * qp, struct ibv_recv_wr *list, struct ibv_recv_wr **bad), (qp, list, bad)
#define FUNCTION_post_srq_recv                                                                                         \
    int, (struct ibv_srq * srq, struct ibv_recv_wr *list, struct ibv_recv_wr **bad), (srq, list, bad)
#define FUNCTION_bind_mw int, (struct ibv_qp * qp, struct ibv_mw *mw, struct ibv_mw_bind *bind), (qp, mw, bind)
#define FUNCTION_create_cq_ex                                                                                          \
    struct ibv_cq_ex *, (struct ibv_context * context, struct ibv_cq_init_attr_ex *attributes), (context, attributes)
#define FUNCTION_create_qp_ex                                                                                          \
    struct ibv_qp *, (struct ibv_context * context, struct ibv_qp_init_attr_ex *attributes), (context, attributes)
/* Of an extended CQ. */
#define FUNCTION_start_poll int, (struct ibv_cq_ex * cq, struct ibv_poll_cq_attr *attributes), (cq, attributes)
#define FUNCTION_next_poll int, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_end_poll void, (struct ibv_cq_ex * cq), (cq)
/* Of an extended queue pair. */
#define FUNCTION_wr_start void, (struct ibv_qp_ex * qp), (qp)
#define FUNCTION_wr_complete int, (struct ibv_qp_ex * qp), (qp)
#define FUNCTION_wr_abort void, (struct ibv_qp_ex * qp), (qp)
#define FUNCTION_wr_bind_mw                                                                                            \
    void, (struct ibv_qp_ex * qp, struct ibv_mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info),              \
        (qp, mw, rkey, info)
#define FUNCTION_wr_atomic_cmp_swp                                                                                     \
    void, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, uint64_t compare, uint64_t swap),                   \
        (qp, rkey, address, compare, swap)
#define FUNCTION_wr_atomic_fetch_add                                                                                   \
    void, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, uint64_t add), (qp, rkey, address, add)
#define FUNCTION_wr_local_inv void, (struct ibv_qp_ex * qp, uint32_t rkey), (qp, rkey)
#define FUNCTION_wr_rdma_read void, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address), (qp, rkey, address)
#define FUNCTION_wr_rdma_write void, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address), (qp, rkey, address)
#define FUNCTION_wr_rdma_write_imm                                                                                     \
    void, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, __be32 data), (qp, rkey, address, data)
#define FUNCTION_wr_send void, (struct ibv_qp_ex * qp), (qp)
#define FUNCTION_wr_send_imm void, (struct ibv_qp_ex * qp, __be32 data), (qp, data)
#define FUNCTION_wr_send_inv void, (struct ibv_qp_ex * qp, uint32_t rkey), (qp, rkey)
#define FUNCTION_wr_send_tso                                                                                           \
    void, (struct ibv_qp_ex * qp, void *header, uint16_t length, uint16_t mss), (qp, header, length, mss)
#define FUNCTION_wr_atomic_write                                                                                       \
    void, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, const void *value), (qp, rkey, address, value)
#define FUNCTION_wr_flush                                                                                              \
    void, (struct ibv_qp_ex * qp, uint32_t rkey, uint64_t address, size_t length, uint8_t type, uint8_t level),        \
        (qp, rkey, address, length, type, level)
#define FUNCTION_wr_set_sge                                                                                            \
    void, (struct ibv_qp_ex * qp, uint32_t lkey, uint64_t address, uint32_t length), (qp, lkey, address, length)
#define FUNCTION_wr_set_sge_list                                                                                       \
    void, (struct ibv_qp_ex * qp, size_t count, const struct ibv_sge *list), (qp, count, list)
#define FUNCTION_wr_set_inline_data                                                                                    \
    void, (struct ibv_qp_ex * qp, void *address, size_t length), (qp, address, length)
#define FUNCTION_wr_set_inline_data_list                                                                               \
    void, (struct ibv_qp_ex * qp, size_t count, const struct ibv_data_buf *list), (qp, count, list)
#define FUNCTION_wr_set_xrc_srqn void, (struct ibv_qp_ex * qp, uint32_t srqn), (qp, srqn)
#define FUNCTION_wr_set_ud_addr                                                                                        \
    void, (struct ibv_qp_ex * qp, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey), (qp, ah, qpn, qkey)

/* The members that ibv_qp_ex has gained since rdma-core 42, after its last one. Present if the QP has the operation. */
struct newer_ops {
    void (*wr_atomic_write)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, const void *value);
    void (*wr_flush)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, size_t length, uint8_t type, uint8_t level);
};
enum { WITH_FLUSH = 1 << 11, WITH_ATOMIC_WRITE = 1 << 12 };
/* ibv_wr_opcode of rdma-core 43 and newer. */
enum { OPCODE_FLUSH = 14, OPCODE_ATOMIC_WRITE = 15 };

#define EXPAND(...) __VA_ARGS__
#define TYPED(macro, ...) macro(__VA_ARGS__)

/* The type of the provider's function, `NAME_function`. */
#define FUNCTION_TYPE(name) TYPED(FUNCTION_TYPE_, name, FUNCTION_##name)
#define FUNCTION_TYPE_(name, type, parameters, arguments) typedef type name##_function parameters;

#define SLOT(n, name, type, parameters, arguments)                                                                     \
    static type name##_##n parameters                                                                                  \
    {                                                                                                                  \
        return name(name##_of[n], EXPAND arguments);                                                                   \
    }
#define SLOTS_OF_(name, type, parameters, arguments)                                                                   \
    static name##_function *name##_of[SLOTS];                                                                          \
    SLOT(0, name, type, parameters, arguments)                                                                         \
    SLOT(1, name, type, parameters, arguments)                                                                         \
    SLOT(2, name, type, parameters, arguments)                                                                         \
    SLOT(3, name, type, parameters, arguments)                                                                         \
    SLOT(4, name, type, parameters, arguments)                                                                         \
    SLOT(5, name, type, parameters, arguments)                                                                         \
    SLOT(6, name, type, parameters, arguments)                                                                         \
    SLOT(7, name, type, parameters, arguments)                                                                         \
    static name##_function *const name##_wrapper[SLOTS] = {name##_0, name##_1, name##_2, name##_3,                     \
                                                           name##_4, name##_5, name##_6, name##_7};
#define SLOTS_OF(name) TYPED(SLOTS_OF_, name, FUNCTION_##name)

/* For functions that ask for CALLER: inlined into the wrapper, whose return address is in the program. */
#define IN_WRAPPER inline __attribute__((always_inline))
#define CALLER __builtin_return_address(0)

/* Replaces `function` by the wrapper of its slot, unless all slots are in use or `function` is a wrapper. */
#define WRAP(function, name)                                                                                           \
    do {                                                                                                               \
        name##_function *current = (function);                                                                         \
        for (int slot = 0; current && slot < SLOTS && current != name##_wrapper[slot]; slot++) {                       \
            name##_function *present = NULL;                                                                           \
            if (__atomic_compare_exchange_n(&name##_of[slot], &present, current, false, __ATOMIC_ACQ_REL,              \
                                            __ATOMIC_ACQUIRE) ||                                                       \
                present == current) {                                                                                  \
                (function) = name##_wrapper[slot];                                                                     \
                break;                                                                                                 \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

#endif
