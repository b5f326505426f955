/*
 * The system calls of a uverbs descriptor as dialects of core (design.md section 3): which ioctl request speaks which.
 */
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import { decodeVerbsIoctl } from '../../uapi/linux/ioctl.ts'
import { callOfRequest, decodeObject } from '../../uapi/object/dialect.ts'

/** Request (32 bits) and argument of an ioctl. */
type Ioctl = readonly [request: number, argument: bigint]

const objectIoctl: Dialect<Ioctl> = (view, request, argument) =>
  decodeObject(view, callOfRequest(request) as number, argument)

/** The dialect of an ioctl: ours has a magic number of its own, everything else is Linux's to know or refuse. */
export const ioctlDialect = (request: number): { name: 'ioctl' | 'object'; dialect: Dialect<Ioctl> } =>
  callOfRequest(request) === undefined
    ? { name: 'ioctl', dialect: decodeVerbsIoctl }
    : { name: 'object', dialect: objectIoctl }
