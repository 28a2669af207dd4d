// The parts of the web platform that the engine has and that these templates use. A handler has no timers,
// sockets or files: everything else is in the contract, which the other file of this directory declares.

declare class TextEncoder {
  encode(text?: string): Uint8Array;
}

declare class TextDecoder {
  constructor(encoding?: "utf-8", options?: { fatal?: boolean });
  decode(bytes?: Uint8Array): string;
}
