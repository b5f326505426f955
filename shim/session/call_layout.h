/*
 * How the arguments of a program's calls lie in its memory: from ib_user_verbs.h, rdma_user_ioctl_cmds.h and
 * src/uapi/object/format.ts.
 */
#ifndef USERDMA_CALL_LAYOUT_H
#define USERDMA_CALL_LAYOUT_H

#include "parts.h"

#include <stdint.h>

struct span {
    uint64_t address;
    uint64_t length;
};

/* struct ib_uverbs_ioctl_hdr */
struct verbs_header {
    uint16_t length;
    uint16_t object_id;
    uint16_t method_id;
    uint16_t num_attrs;
    uint64_t reserved1;
    uint32_t driver_id;
    uint32_t reserved2;
};
_Static_assert(sizeof(struct verbs_header) == 24, "layout of the ABI");

/* struct ib_uverbs_attr. A value of up to 8 bytes is in `data` itself. */
struct verbs_attribute {
    uint16_t id;
    uint16_t length;
    uint16_t flags;
    uint16_t attr_data;
    uint64_t data;
};
_Static_assert(sizeof(struct verbs_attribute) == 16, "layout of the ABI");

/* The object dialect: bytes before the first attribute of a message. */
#define OBJECT_HEADER_BYTES 16
/* The flag of an attribute with address and length of its data. */
#define INDIRECT 0x8u

struct object_attribute {
    uint16_t length;
    uint16_t id;
    uint32_t flags;
};

#endif
