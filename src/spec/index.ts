/*
 * Entry point of `userdma/spec`, the tables: classes with their methods and attributes, enumerations, error numbers,
 * Linux's dialects, drivers' additions. It has no handlers and no codec, so that a browser, a test or a documentation
 * generator can load it.
 */
export { type Cause, type CauseName, causeOfCode, causes, causeText } from './check/causes.ts'
export { type Failure, type FailureJson, failureJson, failureText, isNote } from './check/failures.ts'
export { type Finding, type FindingId, findings, type Severity } from './check/findings.ts'
export { DeviceAttributes, ExtendedDeviceAttributes } from './classes/device/device.ts'
export { PortAttributes } from './classes/device/port.ts'
export { FlowSpec } from './classes/flow.ts'
export * from './classes/ids.ts'
export { type QpClassName, QpTypes } from './classes/qp/qp.ts'
export { Classes, classes } from './classes.ts'
export * from './drivers/ctx.ts'
export * from './drivers/rxe.ts'
export * from './drivers/rxe-rings.ts'
export * from './enums.ts'
export * from './errno.ts'
export type { LinkName } from './links.ts'
export { ioctlMethods, RDMA_VERBS_IOCTL } from './linux/ioctl.ts'
export { LinuxObject } from './linux/names.ts'
export { LinuxObjectClasses } from './linux/structs.ts'
export { writeCommands } from './linux/write.ts'
export { PAGE_BYTES, wholePages } from './memory.ts'
export * from './schema/schema.ts'
export { SendFlags, WcFlags, WcOpcode, WcStatus, WrOpcode } from './work.ts'
