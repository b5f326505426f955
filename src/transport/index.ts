/*
 * What `userdma/transport` exports: the engines and the interfaces that whoever joins them with a device implements.
 */
export { createRcEngine, type RcEngine, type RcEngineOptions } from './rc.ts'
export * from './types.ts'
