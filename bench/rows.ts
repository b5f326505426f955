/*
 * The rows of all benchmarks, in the order of a run.
 */
import { callRows } from './calls.ts'
import { captureRows } from './captures.ts'
import { chainRows } from './chain.ts'
import { checkRows } from './check.ts'
import { codecRows } from './codec.ts'
import { connectionRows } from './connections.ts'
import { controlRows } from './control.ts'
import { countRows } from './counts.ts'
import { driverRows } from './drivers.ts'
import type { Row } from './harness/harness.ts'
import { hookRows } from './hooks.ts'
import { hostRows } from './host.ts'
import { icrcRows } from './icrc.ts'
import { idleRows } from './idle.ts'
import { inprocRows } from './inproc.ts'
import { lentRows } from './lent.ts'
import { manyDevicesRows } from './many-devices.ts'
import { neighbourRows } from './neighbours.ts'
import { objectRows } from './objects.ts'
import { pingpongRows } from './pingpong.ts'
import { recordingRows } from './recording.ts'
import { rpcRows } from './rpc.ts'
import { simRows } from './sim.ts'
import { startRows } from './start.ts'
import { streamRows } from './streams.ts'
import { toolRows } from './tools.ts'
import { udpRows } from './udp.ts'
import { writeBwRows } from './write-bw.ts'

export const rows: readonly Row[] = [
  ...codecRows,
  ...icrcRows,
  ...hookRows,
  ...recordingRows,
  ...captureRows,
  ...inprocRows,
  ...callRows,
  ...connectionRows,
  ...rpcRows,
  ...streamRows,
  ...chainRows,
  ...controlRows,
  ...startRows,
  ...pingpongRows,
  ...toolRows,
  ...writeBwRows,
  ...driverRows,
  ...checkRows,
  ...lentRows,
  ...hostRows,
  ...countRows,
  ...idleRows,
  ...objectRows,
  ...udpRows,
  ...simRows,
  ...manyDevicesRows,
  ...neighbourRows,
]
