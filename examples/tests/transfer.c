/* The program under test as a library, for Python and Rust. */
#include "transfer.h"

struct transfer *example_open(void) { return transfer_open(); }
uint32_t example_qp_num(const struct transfer *transfer) { return transfer_qp_num(transfer); }
int example_write(struct transfer *transfer) { return transfer_write(transfer); }
int example_write_stale(struct transfer *transfer) { return transfer_write_stale(transfer); }
void example_close(struct transfer *transfer) { transfer_close(transfer); }
