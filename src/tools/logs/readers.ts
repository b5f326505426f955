/*
 * All readers, in the order in which they are tried on a line: those of programs first, certain words last. And the
 * table by which the scanner finds lines.
 */
import { certain } from './readers/certain.ts'
import { drivers } from './readers/drivers.ts'
import { deepEp, nixl, nvshmem } from './readers/gpus.ts'
import { libfabric, mercury, mpi } from './readers/libraries.ts'
import { mlx5, mlx5Kernel } from './readers/mlx5.ts'
import { awsOfiNccl, nccl } from './readers/nccl.ts'
import { examples, jobs, mooncake, others, perftest } from './readers/programs.ts'
import { brpc, ceph, gloo } from './readers/services.ts'
import { spdk, storage } from './readers/storage.ts'
import { ucx } from './readers/ucx.ts'
import { scanTable, type Table } from './scan.ts'
import type { Reader, Shape } from './shape.ts'

export const readers: readonly Reader[] = [
  nccl,
  awsOfiNccl,
  ucx,
  mlx5,
  mlx5Kernel,
  libfabric,
  mercury,
  mpi,
  perftest,
  mooncake,
  nixl,
  nvshmem,
  deepEp,
  brpc,
  ceph,
  gloo,
  examples,
  others,
  spdk,
  storage,
  drivers,
  jobs,
  certain,
]

export interface KnownShape {
  readonly shape: Shape
  readonly reader: Reader
  /** A line that one of a rank has explained is not explained again by one of a higher rank. */
  readonly rank: number
  /** In which they are tried. */
  readonly place: number
}

/** `certain` reads only what nobody else has read. */
const all: readonly KnownShape[] = readers
  .flatMap(reader => reader.shapes.map(shape => ({ shape, reader, rank: reader === certain ? 1 : 0 })))
  .map((known, place) => ({ ...known, place }))

const words = [...new Set(all.flatMap(({ shape }) => shape.words))]

export const table: Table = scanTable(words)

/** The shapes that a line with a word may have. */
export const shapesOf: readonly (readonly KnownShape[])[] = words.map(word =>
  all.filter(({ shape }) => shape.words.includes(word)),
)
