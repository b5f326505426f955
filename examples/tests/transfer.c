/* The program under test as a library, for Python and Rust. */
#include "transfer.h"

struct transfer *example_open(const char *name) { return transfer_open(name); }
uint32_t example_qp_num(const struct transfer *transfer) { return transfer_qp_num(transfer); }
int example_request(struct transfer *transfer, int opcode)
{
    return transfer_request(transfer, (enum ibv_wr_opcode)opcode, transfer->mr->rkey);
}
int example_write(struct transfer *transfer) { return transfer_write(transfer); }
int example_write_stale(struct transfer *transfer) { return transfer_write_stale(transfer); }
void example_close(struct transfer *transfer) { transfer_close(transfer); }
