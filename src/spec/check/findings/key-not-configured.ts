/*
 * The row of the finding key-not-configured.
 */

export const keyNotConfigured = {
  severity: 'error',
  needs: ['device', 'indirect keys', 'preload'],
  title: 'a request uses an indirect key that no request has configured',
  why: 'A key of mlx5dv_create_mkey has no memory until a request has configured it: mlx5dv_wr_mkey_configure with its setters, or mlx5dv_wr_mr_list, on a queue pair that was created for it (mlx5dv_wr_post(3)). An access before fails as beyond its range of 0 bytes.',
  advice:
    'configure the key by mlx5dv_wr_mkey_configure or mlx5dv_wr_mr_list, and wait for the completion, before it is used',
  statuses: { LOC_PROT_ERR: 4, REM_ACCESS_ERR: 3 },
} as const
