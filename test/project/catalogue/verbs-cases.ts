/*
 * Programs of ibverbs-utils, infiniband-diags and iproute2 with their options.
 */
import { type ProgramCase, singleProgram } from './cases.ts'

const pair = (program: string, options: string, fails?: string): ProgramCase => ({
  server: `${program} -p PORT ${options}`,
  client: `${program} -p PORT ${options} localhost`,
  ...(fails !== undefined && { fails }),
})

const TIMESTAMPS = 'no completion timestamps, as rxe'
const NO_GID = 'RoCE needs a GID (-g), as on rxe'

export const ibverbsPrograms: readonly ProgramCase[] = [
  singleProgram('ibv_devices'),
  singleProgram('ibv_devinfo'),
  singleProgram('ibv_devinfo -v'),
  singleProgram('ibv_devinfo -l'),
  singleProgram('ibv_devinfo -d rxe1 -i 1'),
  pair('ibv_rc_pingpong', '-g 1 -n 200'),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -n 200 -e -c'),
  pair('ibv_rc_pingpong', '-d rxe2 -g 1 -n 200 -e -c'),
  pair('ibv_rc_pingpong', '-d rxe0 -g 0 -n 200'),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -n 200 -N'),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -m 256 -s 1048576 -n 5 -r 3 -l 2'),
  pair('ibv_rc_pingpong', '-d rxe0 -n 200', NO_GID),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -n 200 -t', TIMESTAMPS),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -n 200 -o'),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -n 200 -O'),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -n 200 -o -P'),
  pair('ibv_rc_pingpong', '-d rxe0 -g 1 -n 200 -j', 'no device memory, as rxe'),
  pair('ibv_uc_pingpong', '-d rxe0 -g 1 -n 200 -c'),
  pair('ibv_uc_pingpong', '-d rxe0 -g 1 -n 200 -e -m 512'),
  pair('ibv_ud_pingpong', '-d rxe0 -g 1 -n 200 -s 1000 -c'),
  pair('ibv_ud_pingpong', '-d rxe0 -g 1 -n 200 -e -l 3'),
  pair('ibv_srq_pingpong', '-d rxe0 -g 1 -n 200 -c'),
  pair('ibv_srq_pingpong', '-d rxe0 -g 1 -n 200 -q 4 -e -r 20'),
  pair('ibv_srq_pingpong', '-d rxe0 -g 1 -n 200 -o'),
  pair('ibv_xsrq_pingpong', '-d rxe0 -g 1 -n 20'),
  pair('ibv_xsrq_pingpong', '-d rxe0 -g 1 -n 20 -e'),
  pair('ibv_xsrq_pingpong', '-d rxe0 -g 1 -n 20 -o'),
]

export const diagsPrograms: readonly ProgramCase[] = [
  singleProgram('ibstat'),
  singleProgram('ibstat -l'),
  singleProgram('ibstat -s'),
  singleProgram('ibstat -p'),
  singleProgram('ibstat -v'),
  singleProgram('ibstat rxe0 1'),
  singleProgram('ibstatus'),
  singleProgram('ibstatus rxe0'),
]

export const iproutePrograms: readonly ProgramCase[] = [
  'rdma dev',
  'rdma dev show rxe0',
  'rdma -d -j -p dev',
  'rdma link',
  'rdma link show rxe0/1',
  'rdma -d -j -p link',
  'rdma resource',
  'rdma resource show pd',
  'rdma resource show mr dev rxe0',
  'rdma resource show cq',
  'rdma resource show qp link rxe0/1',
  'rdma resource show cm_id',
  'rdma resource show ctx',
  'rdma resource show srq',
  'rdma -d -j resource show qp',
  'rdma statistic',
  'rdma statistic show link rxe0/1',
  'rdma statistic mode',
  'rdma system',
  'rdma system show',
  // The last cases of the catalogue: they change the devices.
  'rdma link delete rxe0',
  'rdma link delete rxe1',
  'rdma link delete rxe2',
  'rdma link add rxe9 type rxe netdev lo',
  'rdma dev set rxe9 name mlx5_0',
  'rdma dev show mlx5_0',
].map(line => singleProgram(line))
