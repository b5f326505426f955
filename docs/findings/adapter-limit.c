/* A queue pair with more scatter/gather elements than other adapters support: run with `--like mlx5`. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    struct ibv_qp_init_attr init = small_qp();
    init.cap.max_send_sge = FAULT_OR(32, 1);
    open_device();
    make_end_with(&one, init, 16); /* FAULT */
    make_end(&other);
    connect_ends(&one, &other);
    return destroy_pair(&one, &other);
}
