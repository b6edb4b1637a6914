/**
 * The login phase (RFC 7143 §6.3): one machine for each role, and what they share. This file only names
 * what the rest of the program uses of it.
 */

export type { BinaryEncoding, ChapAlgorithm, ChapCredentials } from './chap.ts';
export {
  type ChapOptions,
  InitiatorLogin,
  type InitiatorLoginOptions,
  type LoginResult,
  type LoginStep,
} from './initiator-login.ts';
export type { SessionKeys, SessionType } from './login-exchange.ts';
export { LoginStatus, loginStatusText } from './login-status.ts';
export {
  TargetLogin,
  type TargetLoginDecision,
  type TargetLoginOptions,
  type TargetLoginRequest,
  type TargetLoginResult,
  type TargetLoginStep,
} from './target-login.ts';
