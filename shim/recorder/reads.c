/*
 * The functions by which a program reads the completion in hand of an extended CQ, wrapped. A provider leaves those
 * NULL that it was not asked for (wc_flags): the call is reported, and crashes, as without userdma.
 */
#include "orders.h"
#include "slots.h"

/* Function, field, flag that asks for it. */
#define READS(X)                                                                                                       \
    X(read_opcode, OPCODE, 0)                                                                                          \
    X(read_vendor_err, VENDOR_ERR, 0)                                                                                  \
    X(read_byte_len, BYTE_LEN, IBV_WC_EX_WITH_BYTE_LEN)                                                                \
    X(read_imm_data, IMM_DATA, IBV_WC_EX_WITH_IMM)                                                                     \
    X(read_qp_num, QP_NUM, IBV_WC_EX_WITH_QP_NUM)                                                                      \
    X(read_src_qp, SRC_QP, IBV_WC_EX_WITH_SRC_QP)                                                                      \
    X(read_wc_flags, WC_FLAGS, 0)                                                                                      \
    X(read_slid, SLID, IBV_WC_EX_WITH_SLID)                                                                            \
    X(read_sl, SL, IBV_WC_EX_WITH_SL)                                                                                  \
    X(read_dlid_path_bits, DLID_PATH_BITS, IBV_WC_EX_WITH_DLID_PATH_BITS)                                              \
    X(read_completion_ts, COMPLETION_TS, IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)                                          \
    X(read_cvlan, CVLAN, IBV_WC_EX_WITH_CVLAN)                                                                         \
    X(read_flow_tag, FLOW_TAG, IBV_WC_EX_WITH_FLOW_TAG)                                                                \
    X(read_tm_info, TM_INFO, IBV_WC_EX_WITH_TM_INFO)                                                                   \
    X(read_completion_wallclock_ns, COMPLETION_WALLCLOCK_NS, IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)

#define FUNCTION_read_opcode enum ibv_wc_opcode, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_vendor_err uint32_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_byte_len uint32_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_imm_data __be32, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_qp_num uint32_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_src_qp uint32_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_wc_flags unsigned int, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_slid uint32_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_sl uint8_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_dlid_path_bits uint8_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_completion_ts uint64_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_cvlan uint16_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_flow_tag uint32_t, (struct ibv_cq_ex * cq), (cq)
#define FUNCTION_read_tm_info void, (struct ibv_cq_ex * cq, struct ibv_wc_tm_info *info), (cq, info)
#define FUNCTION_read_completion_wallclock_ns uint64_t, (struct ibv_cq_ex * cq), (cq)

#define READ_(name, field, flag, type, parameters, arguments)                                                          \
    static type name(name##_function *original, EXPAND parameters)                                                     \
    {                                                                                                                  \
        if (!polls_are_recorded)                                                                                       \
            polls_reading(cq, USERDMA_FIELD_##field, flag);                                                            \
        return original arguments;                                                                                     \
    }                                                                                                                  \
    static type name##_missing parameters                                                                              \
    {                                                                                                                  \
        name##_function *volatile none = NULL;                                                                         \
        if (polls_are_recorded)                                                                                        \
            return (type)0;                                                                                            \
        polls_reading(cq, USERDMA_FIELD_##field, flag);                                                                \
        return none arguments;                                                                                         \
    }
#define READ(name, field, flag)                                                                                        \
    FUNCTION_TYPE(name)                                                                                                \
    TYPED(READ_, name, field, flag, FUNCTION_##name)                                                                   \
    SLOTS_OF(name)
READS(READ)

void reads_wrap(struct ibv_cq_ex *cq)
{
#define WRAP_READ(name, field, flag)                                                                                   \
    if (!cq->name)                                                                                                     \
        cq->name = name##_missing;                                                                                     \
    else                                                                                                               \
        WRAP(cq->name, name);
    READS(WRAP_READ)
}
